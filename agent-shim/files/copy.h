#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"

namespace creel::shim {

struct CopyOptions {
  bool recursive = false;
  bool no_replace = false;
  // Fail on what cannot be copied (fifos, sockets, devices) instead of leaving it out.
  bool all = false;
};

struct Copied {
  // Files, directories and links made.
  uint64_t entries = 0;
  // Content written; holes in sparse files do not count and stay holes.
  uint64_t bytes = 0;
};

// Copies a file, or a directory with all in it, see shim.proto. A directory is copied into one that
// is there; each file is put in place as a whole. Links are copied as links, never followed.
absl::StatusOr<Copied> Copy(const FileRoots& roots, const v1::CopyArgs& args, const Cancel& cancel);

// The same for paths that are resolved already; `source` and `destination` are for messages.
absl::StatusOr<Copied> CopyPlace(const Place& from, const Place& to, std::string_view source,
                                 std::string_view destination, const CopyOptions& options,
                                 const Cancel& cancel);

}  // namespace creel::shim
