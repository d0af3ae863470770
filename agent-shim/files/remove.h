#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"

namespace creel::shim {

// Removes a path, see shim.proto, and tells how many entries went. Never follows a link, never
// removes a root, never enters another file system that is mounted below.
absl::StatusOr<uint64_t> Remove(const FileRoots& roots, const v1::RemoveArgs& args,
                                const Cancel& cancel);

// The same for a path that is resolved already; `path` is for messages.
absl::StatusOr<uint64_t> RemovePlace(const Place& place, std::string_view path, bool recursive,
                                     const Cancel& cancel);

}  // namespace creel::shim
