#include "supervisor/sandbox/workspace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/dir_tree.h"
#include "supervisor/sandbox/loop_image.h"
#include "supervisor/sandbox/mount_calls.h"
#include "supervisor/sandbox/mount_rules.h"

namespace creel {
namespace {

constexpr char kHosts[] = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
constexpr char kLinkTarget[] = "/run/creel";
constexpr char kShimTarget[] = "/.creel";
constexpr char kHostsTarget[] = "/etc/hosts";

// Opens a path below `dir` without following any link.
UniqueFd OpenBelow(int dir, const std::string& path) {
  struct open_how how {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, dir, path.c_str(), &how, sizeof how)));
}

absl::Status CheckFreeSpace(const std::string& path, uint64_t floor, uint64_t wanted) {
  struct statvfs about {};
  if (::statvfs(path.c_str(), &about) != 0) {
    return ErrnoStatus(errno, fmt::format("look at the free space of '{}'", path));
  }
  const uint64_t free = static_cast<uint64_t>(about.f_bavail) * about.f_frsize;
  if (free < floor + wanted) {
    return absl::ResourceExhaustedError(
        fmt::format("{} MiB are free on the disk of '{}', and {} MiB are kept free "
                    "(sandbox.limits.free_space_floor_bytes): make room or close sessions",
                    free >> 20, path, (floor + wanted) >> 20));
  }
  return absl::OkStatus();
}

absl::Status MakeEmptyFile(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  return fd.valid() ? absl::OkStatus() : ErrnoStatus(errno, fmt::format("make '{}'", path));
}

// Puts a restricted copy of `source` (a file or folder of ours) at `target` in the slot.
absl::Status Pass(const std::string& source, const std::string& target, const MountFlags& flags,
                  bool directory) {
  const UniqueFd fd(::open(source.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", source));
  }
  ASSIGN_OR_RETURN(const UniqueFd mount, CloneMount(fd.get(), flags));
  if (directory) {
    RETURN_IF_ERROR(MakeDirectories(target, 0700));
  } else {
    RETURN_IF_ERROR(MakeEmptyFile(target));
  }
  return AttachMount(mount.get(), AT_FDCWD, target);
}

// What every container has as /etc/hosts. Made by one of those that open at once and used by all:
// the kernel mounts no copy of a file that another has taken the place of since.
absl::StatusOr<std::string> HostsFile(const std::string& state_dir) {
  static Mutex mu;
  const MutexLock lock(mu);
  std::string path = state_dir + "/hosts";
  if (auto present = ReadWholeFile(path, 4096); !present.ok() || *present != kHosts) {
    RETURN_IF_ERROR(WriteWholeFile(path, kHosts, 0644));
    if (::chmod(path.c_str(), 0644) != 0) {
      return ErrnoStatus(errno, fmt::format("set the mode of '{}'", path));
    }
  }
  return path;
}

// In the slot: a workspace of Creel's own, and the empty folder that a container started ahead
// sees.
std::string OwnMount(const SandboxPaths& paths, bool sized) {
  return paths.slot + (sized ? "/disk/data" : "/own");
}
std::string LateSlot(const SandboxPaths& paths) { return paths.slot + "/late"; }

// Makes one sandbox's mounts; a function object so that the steps share what they need.
class Preparation {
 public:
  Preparation(const Sandbox::Host& host, const SandboxIdentity& identity, const SandboxPaths& paths)
      : host_(host), identity_(identity), paths_(paths) {
    prepared_.tool_uid = identity.tool_uid;
    prepared_.tool_gid = identity.tool_gid;
  }

  absl::StatusOr<PreparedMounts> Run() {
    RETURN_IF_ERROR(Begin());
    if (Own()) {
      ASSIGN_OR_RETURN(const std::string own, MakeOwnWorkspace());
      Give(own, workdir(), false);
    } else {
      RETURN_IF_ERROR(GiveFolder());
    }
    return std::move(prepared_);
  }

  absl::StatusOr<PreparedMounts> RunAhead(bool late) {
    RETURN_IF_ERROR(Begin());
    ASSIGN_OR_RETURN(const std::string own, MakeOwnWorkspace());
    if (!late) {
      Give(own, workdir(), false);
      return std::move(prepared_);
    }
    const std::string empty = LateSlot(paths_);
    RETURN_IF_ERROR(MakeDirectories(empty, 0700));
    RETURN_IF_ERROR(MountShared(empty));
    prepared_.binds.push_back(
        {.source = empty, .target = workdir(), .read_only = false, .slave = true});
    return std::move(prepared_);
  }

  absl::StatusOr<PreparedMounts> RunLate(int pid) {
    const std::string target = LateSlot(paths_);
    // The slot itself, which what is mounted on it hides.
    const UniqueFd slot(::open(target.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!slot.valid()) {
      return ErrnoStatus(errno, fmt::format("open '{}'", target));
    }
    RETURN_IF_ERROR(CheckFreeSpace(paths_.own_dir, limits().free_space_floor_bytes, 0));
    std::string source;
    if (Own()) {
      source = OwnMount(paths_, host_.abilities.loop_mounts);
      prepared_.bound = host_.abilities.loop_mounts ? "sized" : "watched";
      const UniqueFd own(::open(source.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
      if (!own.valid()) {
        return ErrnoStatus(errno, fmt::format("open '{}'", source));
      }
      ASSIGN_OR_RETURN(const UniqueFd mount, CloneMount(own.get(), {}));
      RETURN_IF_ERROR(AttachMountOn(mount.get(), slot.get()));
    } else {
      RETURN_IF_ERROR(GiveFolder());
      // As a whole, with what is protected in it: at no time is there less.
      source = paths_.slot + "/given";
      RETURN_IF_ERROR(MoveMountOn(source, slot.get()));
    }
    const UniqueFd mounted(::open(target.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!mounted.valid()) {
      return ErrnoStatus(errno, fmt::format("open '{}'", target));
    }
    // First of the slot: taking down what is on it would else take it from the container too.
    RETURN_IF_ERROR(MakePrivate(slot.get()));
    RETURN_IF_ERROR(CheckArrived(mounted.get(), pid));
    return std::move(prepared_);
  }

 private:
  [[nodiscard]] bool Own() const {
    return identity_.workspace.empty() || identity_.access == WorkspaceAccess::kNone;
  }

  absl::Status Begin() {
    RETURN_IF_ERROR(MakeDirectories(paths_.own_dir, 0700));
    RETURN_IF_ERROR(CheckFreeSpace(paths_.own_dir, limits().free_space_floor_bytes, 0));
    if (Root()) {
      RETURN_IF_ERROR(MakeDirectories(paths_.slot, 0700));
      // In a container the run folder is a mount of its own, over which the engine outside sees
      // ours.
      RETURN_IF_ERROR(MountTmpfs(paths_.slot, 64u << 10, IsMountPoint(host_.config.paths.run_dir)));
    }
    return GiveOurs();
  }

  // What the container has at its workdir is what we mounted, with the same restrictions.
  absl::Status CheckArrived(int mounted, int pid) {
    const UniqueFd root(
        ::open(fmt::format("/proc/{}/root", pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct open_how how {};
    how.flags = O_PATH | O_CLOEXEC | O_DIRECTORY;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
    const UniqueFd inside(
        static_cast<int>(::syscall(SYS_openat2, root.get(), workdir().c_str(), &how, sizeof how)));
    struct stat here {};
    struct stat there {};
    struct statvfs flags_here {};
    struct statvfs flags_there {};
    constexpr unsigned long kKept = ST_NOSUID | ST_NODEV | ST_RDONLY;
    if (!inside.valid() || ::fstat(mounted, &here) != 0 || ::fstat(inside.get(), &there) != 0 ||
        here.st_dev != there.st_dev || here.st_ino != there.st_ino ||
        ::fstatvfs(mounted, &flags_here) != 0 || ::fstatvfs(inside.get(), &flags_there) != 0) {
      return absl::UnavailableError("the workspace did not appear in the container");
    }
    const bool read_only = !Own() && identity_.access == WorkspaceAccess::kReadOnly;
    if ((flags_here.f_flag & kKept) != (flags_there.f_flag & kKept) ||
        (flags_there.f_flag & ST_NOSUID) == 0 || (flags_there.f_flag & ST_NODEV) == 0 ||
        (read_only && (flags_there.f_flag & ST_RDONLY) == 0)) {
      return absl::UnavailableError("the workspace has other flags in the container than outside");
    }
    return absl::OkStatus();
  }

  [[nodiscard]] const LimitsConfig& limits() const { return identity_.limits; }
  [[nodiscard]] bool Root() const { return host_.abilities.root; }
  [[nodiscard]] std::string workdir() const { return host_.config.sandbox.workdir; }

  absl::Status GiveOurs() {
    const std::string shim_dir = host_.shim_path.substr(0, host_.shim_path.rfind('/'));
    ASSIGN_OR_RETURN(const std::string hosts, HostsFile(host_.config.paths.state_dir));
    if (!Root()) {
      prepared_.binds.push_back({.source = paths_.link_dir, .target = kLinkTarget});
      prepared_.binds.push_back({.source = shim_dir, .target = kShimTarget});
      prepared_.binds.push_back({.source = hosts, .target = kHostsTarget});
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(
        Pass(paths_.link_dir, paths_.slot + "/link", {.read_only = true, .no_exec = true}, true));
    RETURN_IF_ERROR(Pass(shim_dir, paths_.slot + "/shim", {.read_only = true}, true));
    RETURN_IF_ERROR(
        Pass(hosts, paths_.slot + "/hosts", {.read_only = true, .no_exec = true}, false));
    // The copies are read-only themselves. Asked to make them so, the runtime would remount them
    // and lose nosuid and nodev.
    Give(paths_.slot + "/link", kLinkTarget, false);
    Give(paths_.slot + "/shim", kShimTarget, false);
    Give(paths_.slot + "/hosts", kHostsTarget, false);
    return absl::OkStatus();
  }

  void Give(const std::string& source, const std::string& target, bool recursive) {
    prepared_.binds.push_back(
        {.source = source, .target = target, .read_only = false, .recursive = recursive});
  }

  // Makes the workspace that is Creel's own, and returns where it can be mounted from.
  absl::StatusOr<std::string> MakeOwnWorkspace() {
    if (host_.abilities.loop_mounts) {
      prepared_.bound = "sized";
      RETURN_IF_ERROR(
          MakeLoopImage(TemplateDir(host_.config.paths), paths_.image, limits().workspace_bytes));
      std::string device;
      ASSIGN_OR_RETURN(const UniqueFd loop, AttachLoop(paths_.image, &device));
      const std::string disk = paths_.slot + "/disk";
      RETURN_IF_ERROR(MakeDirectories(disk, 0700));
      RETURN_IF_ERROR(MountExt4(device, disk));
      std::string data = OwnMount(paths_, true);
      if (::mkdir(data.c_str(), 0700) != 0 ||
          ::chown(data.c_str(), prepared_.tool_uid, prepared_.tool_gid) != 0 ||
          ::chmod(data.c_str(), 0755) != 0) {
        return ErrnoStatus(errno, fmt::format("make '{}'", data));
      }
      (void)::rmdir((disk + "/lost+found").c_str());
      return data;
    }
    RETURN_IF_ERROR(RequireConcession(host_.config, "no-sized-workspace",
                                      fmt::format("a workspace of limited size cannot be made ({})",
                                                  host_.abilities.loop_mounts_why)));
    prepared_.bound = "watched";
    RETURN_IF_ERROR(MakeDirectories(paths_.folder, 0700));
    if (::geteuid() == 0) {
      if (::chown(paths_.folder.c_str(), prepared_.tool_uid, prepared_.tool_gid) != 0 ||
          ::chmod(paths_.folder.c_str(), 0755) != 0) {
        return ErrnoStatus(errno, fmt::format("give '{}' to the tools", paths_.folder));
      }
    } else if (::chmod(paths_.folder.c_str(), 0777) != 0) {
      // Only root can give a folder away. Nobody else on the host gets here: the folder above is
      // closed.
      return ErrnoStatus(errno, fmt::format("open '{}' to the tools", paths_.folder));
    }
    if (!Root()) {
      return paths_.folder;
    }
    std::string own = OwnMount(paths_, false);
    RETURN_IF_ERROR(Pass(paths_.folder, own, {}, true));
    return own;
  }

  absl::Status GiveFolder() {
    const MountRules rules = MakeMountRules(host_.config, host_.abilities.engine_dir);
    ASSIGN_OR_RETURN(const GivenFolder folder, OpenGivenFolder(identity_.workspace, rules));
    const bool read_only = identity_.access == WorkspaceAccess::kReadOnly;
    prepared_.bound = read_only ? "read-only" : "watched";
    if (!read_only) {
      RETURN_IF_ERROR(CheckFreeSpace(folder.path, limits().free_space_floor_bytes, 0));
    }
    UniqueFd userns;
    if (host_.abilities.idmap) {
      auto map = MakeIdmap(folder.uid, prepared_.tool_uid, folder.gid, prepared_.tool_gid);
      if (!map.ok()) {
        return map.status();
      }
      userns = *std::move(map);
    }
    if (Root() && userns.valid()) {
      absl::Status passed = PassFolder(folder, {.read_only = read_only}, userns.get());
      if (passed.ok()) {
        Give(paths_.slot + "/given", workdir(), true);
        return absl::OkStatus();
      }
      if (passed.code() != absl::StatusCode::kInvalidArgument &&
          passed.code() != absl::StatusCode::kPermissionDenied) {
        return passed;
      }
      // The file system of this folder does not take part in idmapped mounts.
      RETURN_IF_ERROR(BecomeOwner(folder, std::string(passed.message())));
    } else {
      RETURN_IF_ERROR(BecomeOwner(folder, host_.abilities.idmap_why));
    }
    if (Root()) {
      RETURN_IF_ERROR(PassFolder(folder, {.read_only = read_only}, -1));
      Give(paths_.slot + "/given", workdir(), true);
      return absl::OkStatus();
    }
    prepared_.binds.push_back({.source = folder.path, .target = workdir(), .read_only = read_only});
    if (!read_only) {
      for (const ProtectedPath& each :
           ProtectedPaths(folder.fd.get(), host_.config.sandbox.protect)) {
        prepared_.binds.push_back({.source = folder.path + "/" + each.path,
                                   .target = workdir() + "/" + each.path,
                                   .read_only = each.read_only});
      }
    }
    return absl::OkStatus();
  }

  // Without an idmapped mount the tools must be who the folder belongs to.
  absl::Status BecomeOwner(const GivenFolder& folder, const std::string& why) {
    RETURN_IF_ERROR(RequireConcession(
        host_.config, "no-idmap",
        fmt::format("workspace '{}' cannot be mounted with its owner mapped ({}), so that tools "
                    "would run as its owner, uid {}",
                    folder.path, why, folder.uid)));
    if (folder.uid == 0) {
      RETURN_IF_ERROR(RequireConcession(
          host_.config, "tool-root",
          fmt::format("workspace '{}' belongs to root, so that tools would run as uid 0; give it "
                      "to another user (chown)",
                      folder.path)));
    }
    prepared_.tool_uid = folder.uid;
    prepared_.tool_gid = folder.gid;
    return absl::OkStatus();
  }

  absl::Status PassFolder(const GivenFolder& folder, const MountFlags& flags, int userns) {
    ASSIGN_OR_RETURN(const UniqueFd mount, CloneMount(folder.fd.get(), flags, userns));
    const std::string given = paths_.slot + "/given";
    RETURN_IF_ERROR(MakeDirectories(given, 0700));
    RETURN_IF_ERROR(AttachMount(mount.get(), AT_FDCWD, given));
    if (flags.read_only) {
      return absl::OkStatus();
    }
    for (const ProtectedPath& each :
         ProtectedPaths(folder.fd.get(), host_.config.sandbox.protect)) {
      const UniqueFd source = OpenBelow(folder.fd.get(), each.path);
      const UniqueFd target = OpenBelow(mount.get(), each.path);
      if (!source.valid() || !target.valid()) {
        return absl::FailedPreconditionError(
            fmt::format("'{}/{}' changed while it was to be protected: open the session again",
                        folder.path, each.path));
      }
      ASSIGN_OR_RETURN(const UniqueFd copy,
                       CloneMount(source.get(), {.read_only = each.read_only}, userns));
      // Not by name, as the folder is somebody else's: the mount lands on what was opened.
      RETURN_IF_ERROR(Annotate(AttachMountOn(copy.get(), target.get()),
                               fmt::format("protect '{}/{}'", folder.path, each.path)));
    }
    return absl::OkStatus();
  }

  const Sandbox::Host& host_;
  const SandboxIdentity& identity_;
  const SandboxPaths& paths_;
  PreparedMounts prepared_;
};

}  // namespace

std::vector<ProtectedPath> ProtectedPaths(int folder, const std::vector<std::string>& names) {
  std::vector<ProtectedPath> found;
  std::set<std::string> parents;
  std::set<std::string> leaves;
  for (const std::string& name : names) {
    if (name.empty() || name.front() == '/' || !OpenBelow(folder, name).valid()) {
      continue;
    }
    leaves.insert(name);
    for (size_t slash = name.find('/'); slash != std::string::npos;
         slash = name.find('/', slash + 1)) {
      parents.insert(name.substr(0, slash));
    }
  }
  for (const std::string& parent : parents) {
    if (leaves.count(parent) == 0) {
      found.push_back({.path = parent, .read_only = false});
    }
  }
  for (const std::string& leaf : leaves) {
    found.push_back({.path = leaf, .read_only = true});
  }
  std::sort(found.begin(), found.end(), [](const ProtectedPath& a, const ProtectedPath& b) {
    return a.path < b.path;  // a parent is the start of its children's names
  });
  return found;
}

absl::StatusOr<PreparedMounts> PrepareMounts(const Sandbox::Host& host,
                                             const SandboxIdentity& identity,
                                             const SandboxPaths& paths) {
  return Preparation(host, identity, paths).Run();
}

absl::StatusOr<PreparedMounts> PrepareMountsAhead(const Sandbox::Host& host,
                                                  const SandboxIdentity& identity,
                                                  const SandboxPaths& paths, bool late) {
  return Preparation(host, identity, paths).RunAhead(late);
}

absl::Status ReleaseMountsAhead(const SandboxPaths& paths) {
  for (const char* held : {"/link", "/shim", "/hosts"}) {
    RETURN_IF_ERROR(DetachMounts(paths.slot + held));
  }
  return absl::OkStatus();
}

absl::StatusOr<PreparedMounts> MountLate(const Sandbox::Host& host, const SandboxIdentity& identity,
                                         const SandboxPaths& paths, int pid) {
  ASSIGN_OR_RETURN(PreparedMounts mounts, Preparation(host, identity, paths).RunLate(pid));
  RETURN_IF_ERROR(ReleaseMounts(paths));
  if (mounts.bound != "sized") {
    // The one made ahead was not wanted. Its blocks go with the loop device, which just ended.
    (void)::unlink(paths.image.c_str());
  }
  return mounts;
}

absl::Status ReleaseMounts(const SandboxPaths& paths) {
  RETURN_IF_ERROR(DetachMounts(paths.slot));
  if (::rmdir(paths.slot.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, fmt::format("remove '{}'", paths.slot));
  }
  return absl::OkStatus();
}

absl::Status RemoveMounts(const SandboxPaths& paths) {
  absl::Status released = absl::OkStatus();
  if (::geteuid() == 0) {
    released = ReleaseMounts(paths);
  }
  const size_t slash = paths.own_dir.rfind('/');
  absl::Status removed =
      RemoveTree(paths.own_dir.substr(0, slash), paths.own_dir.substr(slash + 1));
  return released.ok() ? removed : released;
}

}  // namespace creel
