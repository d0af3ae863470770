#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "supervisor/base/status.h"
#include "supervisor/egress/http_head.h"

namespace creel::egress {

// Reads the body of one message, as it comes.
class BodyReader {
 public:
  explicit BodyReader(const Framing& framing);

  // Takes what belongs to the body from the front of `in` and appends its content to `out`, at most
  // `most` bytes of it. Returns how many bytes of `in` were taken. kInvalidArgument: chunks that
  // are not written to the letter (extensions, LF alone, sizes with signs or more than 15 digits).
  absl::StatusOr<size_t> Take(std::string_view in, std::string& out, size_t most);
  // The connection has ended. kInvalidArgument: in the middle of the body.
  absl::Status End();

  [[nodiscard]] bool done() const { return state_ == State::kDone; }
  // Bytes of content so far.
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  enum class State { kData, kSize, kDataEnd, kTrailer, kDone };

  absl::Status OnLine();

  const Framing::Kind kind_;
  State state_;
  uint64_t left_ = 0;  // of the body, or of the chunk
  uint64_t bytes_ = 0;
  std::string line_;  // a chunk's size or a trailer, up to its end
  size_t trailer_bytes_ = 0;
};

// `data` as one chunk; nothing for no data. The end is "0\r\n\r\n".
void AppendChunk(std::string_view data, std::string& out);

}  // namespace creel::egress
