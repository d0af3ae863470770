#include "agent-shim/files/identity.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr auto kUnchanged = static_cast<uid_t>(-1);
constexpr size_t kStackBytes = size_t{64} * 1024;

// glibc's wrappers change the ids of every thread of the process; the calls themselves change
// those of one.
int SetThreadUids(uid_t real, uid_t effective, uid_t saved) {
  return static_cast<int>(syscall(SYS_setresuid, real, effective, saved));
}
int SetThreadGids(gid_t real, gid_t effective, gid_t saved) {
  return static_cast<int>(syscall(SYS_setresgid, real, effective, saved));
}

// Both answer with the id that was in force before, also when they change nothing: asking for -1
// reads it. -1 comes back only where the call does not exist.
int64_t SetFsUid(uid_t uid) { return static_cast<int32_t>(syscall(SYS_setfsuid, uid)); }
int64_t SetFsGid(gid_t gid) { return static_cast<int32_t>(syscall(SYS_setfsgid, gid)); }

bool FsIdsAre(const ToolIdentity& tool) {
  return SetFsUid(kUnchanged) == static_cast<int32_t>(tool.uid) &&
         SetFsGid(kUnchanged) == static_cast<int32_t>(tool.gid);
}

bool EffectiveIdsAre(const ToolIdentity& tool) {
  return syscall(SYS_geteuid) == static_cast<int64_t>(tool.uid) &&
         syscall(SYS_getegid) == static_cast<int64_t>(tool.gid);
}

absl::Status DropGroups() {
  const int64_t groups = syscall(SYS_getgroups, 0, nullptr);
  if (groups < 0) {
    return ErrnoStatus(errno, "getgroups");
  }
  if (groups > 0 && syscall(SYS_setgroups, 0, nullptr) != 0) {
    return ErrnoStatus(errno, "setgroups");
  }
  return absl::OkStatus();
}

absl::Status DropCapabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capset, &header, data) != 0) {
    return ErrnoStatus(errno, "capset");
  }
  __user_cap_data_struct now[2] = {};
  if (syscall(SYS_capget, &header, now) != 0) {
    return ErrnoStatus(errno, "capget");
  }
  if ((now[0].effective | now[1].effective | now[0].permitted | now[1].permitted) != 0) {
    return absl::PermissionDeniedError("the thread still holds capabilities");
  }
  return absl::OkStatus();
}

struct InotifyRequest {
  ToolIdentity tool;
  int fd = -1;
  int error = 0;
};

void* MakeInotify(void* argument) {
  auto* request = static_cast<InotifyRequest*>(argument);
  if (!EffectiveIdsAre(request->tool) &&
      (SetThreadGids(kUnchanged, request->tool.gid, kUnchanged) != 0 ||
       SetThreadUids(kUnchanged, request->tool.uid, kUnchanged) != 0)) {
    request->error = errno;
    return nullptr;
  }
  request->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  request->error = errno;
  return nullptr;
}

}  // namespace

absl::Status BecomeTool(const ToolIdentity& tool) {
  if (tool.uid == kUnchanged || tool.gid == static_cast<gid_t>(kUnchanged)) {
    return absl::InvalidArgumentError("the tool identity is no valid uid and gid");
  }
  const bool same = EffectiveIdsAre(tool) && tool.uid != 0;
  if (!same) {
    RETURN_IF_ERROR(DropGroups());
  }
  // The gid first: with the uid goes the right to change it.
  SetFsGid(tool.gid);
  SetFsUid(tool.uid);
  if (!FsIdsAre(tool)) {
    // No such call here. The real and saved uids stay 0, which still keeps signals, ptrace and
    // prlimit of the tools away from this thread.
    if (SetThreadGids(kUnchanged, tool.gid, kUnchanged) != 0 ||
        SetThreadUids(kUnchanged, tool.uid, kUnchanged) != 0) {
      return ErrnoStatus(errno, "cannot take the tool's identity");
    }
    if (!EffectiveIdsAre(tool) || (SetFsUid(kUnchanged) != -1 && !FsIdsAre(tool))) {
      return absl::PermissionDeniedError(
          fmt::format("cannot take the tool's identity, uid {} gid {}", tool.uid, tool.gid));
    }
  }
  return DropCapabilities();
}

absl::StatusOr<UniqueFd> MakeInotifyAs(const ToolIdentity& tool) {
  InotifyRequest request{.tool = tool};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, MakeInotify, &request);
  pthread_attr_destroy(&attributes);
  if (error != 0) {
    return ErrnoStatus(error, "cannot start a thread");
  }
  pthread_join(thread, nullptr);
  UniqueFd fd(request.fd);
  if (!fd.valid()) {
    return ErrnoStatus(request.error, "inotify_init1");
  }
  return fd;
}

}  // namespace creel::shim
