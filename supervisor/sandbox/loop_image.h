#pragma once

#include <cstdint>
#include <string>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// Makes `path` a formatted ext4 image of `bytes` (rounded up to whole MiB), without a journal: what
// a sandbox leaves behind when the host goes down is thrown away. The first of a size is formatted
// in `template_dir` (tens of ms); the others are sparse copies of it (well under one). Only the
// blocks in use take room on the host.
absl::Status MakeLoopImage(const std::string& template_dir, const std::string& path,
                           uint64_t bytes);

// Attaches the image to a free loop device, which goes away with its last user: as long as the
// descriptor is held or the device is mounted, it is there. `device` gets its name.
absl::StatusOr<UniqueFd> AttachLoop(const std::string& image, std::string* device);

}  // namespace creel
