#pragma once

#include <cstdint>
#include <string>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/evidence/bundle_writer.h"

namespace creel {

// Opens `path` below the root of process `pid`, as that process sees it, as a folder. Nothing on
// the way may be a link. `container` must stand in the process's control groups, as its number may
// be another's by now; empty: not checked.
absl::StatusOr<UniqueFd> OpenInProcess(int pid, const std::string& container,
                                       const std::string& path);

// Opens a folder of the host. Links on the way are followed as OpenNamed does.
absl::StatusOr<UniqueFd> OpenFolder(const std::string& path);

struct TreeBounds {
  uint64_t max_entries = 100'000;
  uint32_t max_depth = 256;
};

// Adds everything in `folder` to the bundle, below `name`. A container may have made it and may go
// on changing it: no link is followed, nothing but regular files is opened, no open waits for a
// fifo, a lease or a device, and other file systems are left out. What is left out is told.
absl::Status CaptureTree(UniqueFd folder, const std::string& name, const TreeBounds& bounds,
                         BundleWriter& bundle);

}  // namespace creel
