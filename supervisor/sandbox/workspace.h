#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/container_config.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/sandbox/sandbox_paths.h"

namespace creel {

// What a container is to be given of the host, ready to be mounted.
struct PreparedMounts {
  std::vector<BindMount> binds;
  // sized | watched | read-only
  std::string bound;
  // Who the tools must be; differs from the identity's where a folder cannot be idmapped.
  uint32_t tool_uid = 0;
  uint32_t tool_gid = 0;
};

// Makes the workspace of `identity` and everything else its container sees of the host: the link's
// directory (which must be there), the shim, /etc/hosts. As root all of it is prepared as mounts of
// our own (nosuid, nodev) in paths.slot, which the engine copies into the container; if the engine
// does not see our mounts it finds nothing there and refuses, so no container starts with less.
//   kInvalidArgument     the folder may not be mounted
//   kFailedPrecondition  a bound or owner cannot be had and no concession names it
//   kResourceExhausted   the host has less free space than the configured floor
// What was made is left for RemoveMounts, on failure too.
absl::StatusOr<PreparedMounts> PrepareMounts(const Sandbox::Host& host,
                                             const SandboxIdentity& identity,
                                             const SandboxPaths& paths);

// The same for a container that is started before its session is known: nothing of anybody's is in
// it. A workspace of Creel's own is made for `identity`'s tool uid. With `late` that waits in the
// slot, and the container has an empty folder in its place that shows what MountLate puts there;
// else it is mounted at once.
absl::StatusOr<PreparedMounts> PrepareMountsAhead(const Sandbox::Host& host,
                                                  const SandboxIdentity& identity,
                                                  const SandboxPaths& paths, bool late);

// Once the container that PrepareMountsAhead was for runs: what it holds now goes from the slot,
// and what the claim needs stays.
absl::Status ReleaseMountsAhead(const SandboxPaths& paths);

// Puts the workspace of `identity`, the one made ahead or the folder it names, into the container
// whose first process is `pid`, looks from outside whether it is there as it should be, and cuts
// the tie, so that nothing that is mounted later gets in. Errors as PrepareMounts, and
//   kUnavailable  it is not to be seen in the container
absl::StatusOr<PreparedMounts> MountLate(const Sandbox::Host& host, const SandboxIdentity& identity,
                                         const SandboxPaths& paths, int pid);

// Once the container runs it holds all it needs; the host's own mount points can go. The sized
// image stays in use until the container ends.
absl::Status ReleaseMounts(const SandboxPaths& paths);

// Takes down and removes all that PrepareMounts made, for a sandbox of which no container is left.
// Can be repeated. A folder that was given is not touched.
absl::Status RemoveMounts(const SandboxPaths& paths);

// The protected names below `folder` (an open directory) that are there, parents before children:
// each parent stands in its own place too, so that a tool cannot rename it away. Links on the way
// are not followed; such a name is left out.
struct ProtectedPath {
  std::string path;  // relative
  bool read_only = false;
};
std::vector<ProtectedPath> ProtectedPaths(int folder, const std::vector<std::string>& names);

}  // namespace creel
