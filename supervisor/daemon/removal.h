#pragma once

#include <chrono>

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"

namespace creel {

// Takes down every sandbox of this install: containers with its label, known to the store or not,
// frozen or not; their mounts, sockets, workspaces and spools. The record and the evidence stay.
// For the time when no supervisor will run again, as before the package is removed. Returns how
// many containers there were; without a state folder none.
//   kFailedPrecondition  a supervisor serves these folders: it holds the store
//   kUnavailable         the engine does not answer; nothing is touched then
absl::StatusOr<int> RemoveSandboxes(const Config& config, std::chrono::seconds patience);

}  // namespace creel
