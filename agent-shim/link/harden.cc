#include "agent-shim/link/harden.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace creel::shim {
namespace {

constexpr uint32_t kKept = (1U << CAP_SETUID) | (1U << CAP_SETGID) | (1U << CAP_KILL);

absl::Status DropCapabilities() {
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  // Possible only with SETPCAP, which a sandbox's PID 1 does not have: there the engine has set the
  // bounding set. Without it no-new-privileges keeps what is in the set out of reach.
  for (int capability = 0; capability <= 63; ++capability) {
    const bool kept = capability < 32 && ((kKept >> capability) & 1U) != 0;
    if (!kept && prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1) {
      prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    }
  }
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[2] = {};
  if (syscall(SYS_capget, &header, sets) != 0) {
    return ErrnoStatus(errno, "read the capabilities");
  }
  sets[0].permitted &= kKept;
  sets[1].permitted = 0;
  for (__user_cap_data_struct& set : sets) {
    set.effective = set.permitted;
    set.inheritable = 0;
  }
  if (syscall(SYS_capset, &header, sets) != 0) {
    return ErrnoStatus(errno, "drop capabilities");
  }
  return absl::OkStatus();
}

absl::Status ResetSignals() {
  for (int number = 1; number < NSIG; ++number) {
    signal(number, SIG_DFL);
  }
  signal(SIGPIPE, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGINT);
  sigaddset(&blocked, SIGCHLD);
  if (sigprocmask(SIG_SETMASK, &blocked, nullptr) != 0) {
    return ErrnoStatus(errno, "block signals");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Harden() {
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return ErrnoStatus(errno, "become non-dumpable");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return ErrnoStatus(errno, "renounce new privileges");
  }
  if (clearenv() != 0) {
    return absl::InternalError("clear the environment: no memory");
  }
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  if (setrlimit(RLIMIT_CORE, &no_core) != 0) {
    return ErrnoStatus(errno, "renounce core dumps");
  }
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = std::min<rlim_t>(files.rlim_max, 65536);
    setrlimit(RLIMIT_NOFILE, &files);
  }
  if (syscall(SYS_close_range, 3, INT_MAX, 0) != 0) {
    for (int fd = 3; fd < 1024; ++fd) {
      close(fd);
    }
  }
  RETURN_IF_ERROR(ResetSignals());
  return DropCapabilities();
}

}  // namespace creel::shim
