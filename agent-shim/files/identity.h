#pragma once

#include <sys/types.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// Who tool processes and file calls are.
struct ToolIdentity {
  uid_t uid = 0;
  gid_t gid = 0;
};

// Gives the calling thread, and no other, the tool's identity for everything it does to files, for
// the rest of its life: file-system uid and gid of `tool`, no supplementary group, no capability.
// The real, effective and saved uids stay, so that the tool gains no power over the thread (kill,
// ptrace, prlimit and scheduling look at those). Where the kernel has no setfsuid (gVisor) the
// effective ids are changed instead. What was set is read back.
// On failure the thread must not touch files:
//   kPermissionDenied  the process lacks CAP_SETUID or CAP_SETGID and is not `tool` already
absl::Status BecomeTool(const ToolIdentity& tool);

// An inotify instance that counts against the limits of `tool`, not of the shim's own uid: the
// kernel charges the effective uid of whoever makes it, and uid 0 is shared with the host. Made on
// a thread of its own that ends at once, because an effective uid opens a thread's scheduling to
// the tool.
//   kResourceExhausted  the tool's inotify instances are used up
absl::StatusOr<UniqueFd> MakeInotifyAs(const ToolIdentity& tool);

}  // namespace creel::shim
