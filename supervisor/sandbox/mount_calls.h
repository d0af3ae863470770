#pragma once

#include <cstdint>
#include <string>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// What is not allowed on a mount; set-id bits and device files never work on one of ours.
struct MountFlags {
  bool read_only = false;
  bool no_exec = false;
};

// A copy of the one mount that `fd` (O_PATH is enough) lies on, with `fd` as its root; what is
// mounted below is not part of it. It belongs to no place yet and goes away with the descriptor.
// With `userns` its owners are shown as that user namespace maps them.
absl::StatusOr<UniqueFd> CloneMount(int fd, const MountFlags& flags, int userns = -1);

// Puts a mount at the path `name` below `dir`; a link at its end is not followed.
absl::Status AttachMount(int mount, int dir, const std::string& name);

// Puts a mount on what `target` (O_PATH) has open, wherever that is called now.
absl::Status AttachMountOn(int mount, int target);

// Moves the mount at `source`, which lies in a private one, with all below it onto what `target`
// (O_PATH) has open.
absl::Status MoveMountOn(const std::string& source, int target);

// Mounts `folder` on itself, so that what is mounted on it from now on spreads to its slaves.
absl::Status MountShared(const std::string& folder);
// From now on nothing that is mounted on `mount`, the root of one, or taken from it, spreads; what
// it has on it stays where it is.
absl::Status MakePrivate(int mount);

// Whether something is mounted at `path` itself.
bool IsMountPoint(const std::string& path);
// A small file system in memory. What is mounted in it is nobody else's, unless it `spreads` as
// what is mounted around it does.
absl::Status MountTmpfs(const std::string& target, uint64_t bytes, bool spreads);
absl::Status MountExt4(const std::string& device, const std::string& target);

// Takes down all that is mounted at or below `target`, now from the name and from the machine as
// soon as nobody uses it. Nothing mounted there is no error.
absl::Status DetachMounts(const std::string& target);

// A user namespace in which the host's `host_uid`:`host_gid` and `inner_uid`:`inner_gid` are the
// same in the sense of an idmapped mount: files of the one are shown as the other's.
absl::StatusOr<UniqueFd> MakeIdmap(uint32_t host_uid, uint32_t inner_uid, uint32_t host_gid,
                                   uint32_t inner_gid);

}  // namespace creel
