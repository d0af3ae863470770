#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"

namespace creel::shim {

// What one step of a streamed verb gave.
enum class Produced {
  // A message; more may follow.
  kMessage,
  // A message, the last one.
  kLastMessage,
  // No message yet: so that a long search does not keep others waiting, it wants to be asked again.
  kNothingYet,
  // No message: the stream is over.
  kEnd,
};

// A streamed verb as a machine that is asked for one message at a time, so that it holds no thread
// while its reader is slow. Next() needs the tool's identity; `out` may be one used before.
template <typename Message>
class Producer {
 public:
  virtual ~Producer() = default;
  virtual absl::StatusOr<Produced> Next(Message& out, const Cancel& cancel) = 0;
};

// Reads a file, or a range of it, as it was when it was opened: what is appended later is not
// told, and if it shrinks meanwhile the stream ends early.
absl::StatusOr<std::unique_ptr<Producer<v1::FileChunk>>> ReadFile(const FileRoots& roots,
                                                                  const v1::ReadFileArgs& args);

}  // namespace creel::shim
