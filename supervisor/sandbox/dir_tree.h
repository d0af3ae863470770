#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// Makes `path` and what is missing above it, each with `mode` whatever the umask is. What is there
// already keeps its mode, but must be a directory.
absl::Status MakeDirectories(const std::string& path, uint32_t mode);

// Opens a directory that is not a link.
absl::StatusOr<UniqueFd> OpenDirectory(const std::string& path);

// Removes `name` in the directory `parent` with all below it. Follows no link, leaves what is on
// another file system alone (kFailedPrecondition), and does with few descriptors however deep the
// tree is: a container may have made it. What is not there is no error.
absl::Status RemoveTree(const std::string& parent, const std::string& name);

// Size on disk of all below `path`, links not followed, other file systems left out. Looks at no
// more than `max_entries` entries, so for a larger tree it is a lower bound.
uint64_t TreeBytes(const std::string& path, uint64_t max_entries);

// Writes a small file as a whole, to a temporary name first, with fsync.
absl::Status WriteWholeFile(const std::string& path, std::string_view content, uint32_t mode);
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t max_bytes);

}  // namespace creel
