#include "supervisor/sandbox/mount_calls.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace creel {
namespace {

// Ids that nobody has: on disk these stand for the container's first 65,536. Without them a tool
// that tries to give a file away, as `cp -a` does, is told EOVERFLOW, which it takes for a failure;
// with them it is told EPERM, as anywhere else. And should uid 0 of the container ever make a file,
// it is no host user's.
constexpr uint32_t kNobodysIds = 0x70000000;
constexpr uint32_t kNobodysCount = 65'536;

absl::Status WriteMap(pid_t child, const char* which, uint32_t host, uint32_t inner) {
  const std::string path = fmt::format("/proc/{}/{}", child, which);
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  // The mount's own view: ids on disk (first column) appear as the second.
  std::string lines = fmt::format("{} {} 1\n", host, inner);
  const bool host_is_apart = host < kNobodysIds || host - kNobodysIds >= kNobodysCount;
  if (inner >= kNobodysCount && host_is_apart) {
    lines += fmt::format("{} 0 {}\n", kNobodysIds, kNobodysCount);
  }
  if (!fd.valid() || ::write(fd.get(), lines.data(), lines.size()) < 0) {
    return ErrnoStatus(errno, fmt::format("write '{}'", path));
  }
  return absl::OkStatus();
}

// A child that does nothing but hold a user namespace; killed and reaped at the end of the scope.
class NamespaceHolder {
 public:
  // clone() of the bare kind: the child runs on a copy of this stack and does nothing but wait.
  NamespaceHolder() {
    pid_ = static_cast<pid_t>(
        ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
    if (pid_ == 0) {
      for (;;) {
        ::syscall(SYS_ppoll, nullptr, 0, nullptr, nullptr, 0);
      }
    }
  }
  NamespaceHolder(const NamespaceHolder&) = delete;
  NamespaceHolder& operator=(const NamespaceHolder&) = delete;
  ~NamespaceHolder() {
    if (pid_ > 0) {
      (void)::kill(pid_, SIGKILL);
      while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

}  // namespace

absl::StatusOr<UniqueFd> CloneMount(int fd, const MountFlags& flags, int userns) {
  UniqueFd copy(::open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
  if (!copy.valid()) {
    return ErrnoStatus(errno, "copy a mount");
  }
  struct mount_attr attributes {};
  attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  // Or what is mounted in the copy would appear in the original too, where that one is shared.
  attributes.propagation = MS_PRIVATE;
  if (flags.read_only) {
    attributes.attr_set |= MOUNT_ATTR_RDONLY;
  }
  if (flags.no_exec) {
    attributes.attr_set |= MOUNT_ATTR_NOEXEC;
  }
  if (userns >= 0) {
    attributes.attr_set |= MOUNT_ATTR_IDMAP;
    attributes.userns_fd = static_cast<uint64_t>(userns);
  }
  if (::mount_setattr(copy.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
    return ErrnoStatus(errno, userns >= 0 ? "map the owners of a mount" : "restrict a mount");
  }
  return copy;
}

absl::Status AttachMount(int mount, int dir, const std::string& name) {
  // MOVE_MOUNT_T_SYMLINKS is left out: the target is not looked up through a link at its end.
  if (::move_mount(mount, "", dir, name.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return ErrnoStatus(errno, fmt::format("mount '{}'", name));
  }
  return absl::OkStatus();
}

absl::Status AttachMountOn(int mount, int target) {
  if (::move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) {
    return ErrnoStatus(errno, "mount in place");
  }
  return absl::OkStatus();
}

absl::Status MoveMountOn(const std::string& source, int target) {
  if (::move_mount(AT_FDCWD, source.c_str(), target, "", MOVE_MOUNT_T_EMPTY_PATH) != 0) {
    return ErrnoStatus(errno, fmt::format("move the mount '{}'", source));
  }
  return absl::OkStatus();
}

absl::Status MountShared(const std::string& folder) {
  if (::mount(folder.c_str(), folder.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
      ::mount(nullptr, folder.c_str(), nullptr, MS_SHARED, nullptr) != 0) {
    return ErrnoStatus(errno, fmt::format("mount '{}' on itself", folder));
  }
  return absl::OkStatus();
}

absl::Status MakePrivate(int mount) {
  struct mount_attr attributes {};
  attributes.propagation = MS_PRIVATE;
  if (::mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes) !=
      0) {
    return ErrnoStatus(errno, "make a mount private");
  }
  return absl::OkStatus();
}

bool IsMountPoint(const std::string& path) {
  struct statx about {};
  return ::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, 0, &about) == 0 &&
         (about.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

absl::Status MountTmpfs(const std::string& target, uint64_t bytes, bool spreads) {
  const std::string options = fmt::format("size={},nr_inodes=64,mode=0700", bytes);
  if (::mount("creel", target.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              options.c_str()) != 0) {
    return ErrnoStatus(errno, fmt::format("mount a tmpfs at '{}'", target));
  }
  if (!spreads && ::mount(nullptr, target.c_str(), nullptr, MS_PRIVATE, nullptr) != 0) {
    return ErrnoStatus(errno, fmt::format("make '{}' private", target));
  }
  return absl::OkStatus();
}

absl::Status MountExt4(const std::string& device, const std::string& target) {
  // noinit_itable: no kernel thread that writes zeros to every new image.
  if (::mount(device.c_str(), target.c_str(), "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME,
              "noinit_itable,errors=remount-ro") != 0) {
    return ErrnoStatus(errno, fmt::format("mount '{}' at '{}'", device, target));
  }
  return absl::OkStatus();
}

absl::Status DetachMounts(const std::string& target) {
  // More than one may lie on top of each other after a crash.
  for (int layer = 0; layer < 16; ++layer) {
    if (::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
      if (errno == EINVAL || errno == ENOENT) {
        return absl::OkStatus();
      }
      return ErrnoStatus(errno, fmt::format("unmount '{}'", target));
    }
  }
  return absl::InternalError(fmt::format("unmount '{}': too many mounts", target));
}

absl::StatusOr<UniqueFd> MakeIdmap(uint32_t host_uid, uint32_t inner_uid, uint32_t host_gid,
                                   uint32_t inner_gid) {
  const NamespaceHolder holder;
  if (holder.pid() < 0) {
    return ErrnoStatus(errno, "make a user namespace");
  }
  RETURN_IF_ERROR(WriteMap(holder.pid(), "uid_map", host_uid, inner_uid));
  RETURN_IF_ERROR(WriteMap(holder.pid(), "gid_map", host_gid, inner_gid));
  UniqueFd fd(::open(fmt::format("/proc/{}/ns/user", holder.pid()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "open a user namespace");
  }
  return fd;
}

}  // namespace creel
