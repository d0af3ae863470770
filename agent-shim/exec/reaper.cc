#include "agent-shim/exec/reaper.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>

#include "agent-shim/exec/launch_packet.h"
#include "creel/shim/v1/process.pb.h"

namespace creel::shim {
namespace {

constexpr int kSocket = 3;  // where a reaper keeps its end; 0 to 2 are /dev/null
constexpr int kMaxFds = 4;

// A launch as the reaper holds it while it starts the command.
struct Launch {
  LaunchHeader header;
  int fds[kMaxFds];
  int fd_count;
  const char* cwd;
  // One free slot stands before argv, for the shell of a script without a first line.
  char** argv;
  char** envp;
  const char* path;
  void* body_map;
  size_t body_map_bytes;
  void* vector_map;
  size_t vector_map_bytes;
};

// Written by the vforked child, which shares the reaper's memory until it has executed.
struct StartError {
  volatile int error;
  volatile uint32_t step;
};

void CloseFrom(int first) {
  // Not ~0U as the last: gVisor takes no number above this one, and each close costs it 30 us.
  if (syscall(SYS_close_range, first, INT_MAX, 0) == 0) {
    return;
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const int end = limit.rlim_cur > 65536 ? 65536 : static_cast<int>(limit.rlim_cur);
  for (int fd = first; fd < end; ++fd) {
    close(fd);
  }
}

void Send(const Report& report) {
  ssize_t sent = 0;
  do {
    sent = send(kSocket, &report, sizeof report, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    _exit(1);  // PID 1 is gone or gave this reaper up
  }
}

[[noreturn]] void Fail(StartError* error, v1::StartStep step, int code) {
  error->step = step;
  error->error = code;
  _exit(127);
}

void TakeToolIdentity(const Launch& launch, StartError* error) {
  const uid_t uid = launch.header.uid;
  const gid_t gid = launch.header.gid;
  // The raw calls: glibc's would signal the threads of the process this one was forked from.
  const gid_t mark = launch.header.mark;
  if (syscall(SYS_getuid) == 0) {
    if (syscall(SYS_setgroups, mark != 0 ? 1 : 0, &mark) != 0 ||
        syscall(SYS_setresgid, gid, gid, gid) != 0 || syscall(SYS_setresuid, uid, uid, uid) != 0) {
      Fail(error, v1::START_STEP_SETUP, errno);
    }
  }
  gid_t groups[2] = {};
  if (mark != 0 && (syscall(SYS_getgroups, 2, groups) != 1 || groups[0] != mark)) {
    Fail(error, v1::START_STEP_SETUP, EPERM);
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct cap_header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[2] = {};
  if (syscall(SYS_capset, &cap_header, none) != 0) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
  uid_t uids[3];
  gid_t gids[3];
  if (syscall(SYS_getresuid, &uids[0], &uids[1], &uids[2]) != 0 ||
      syscall(SYS_getresgid, &gids[0], &gids[1], &gids[2]) != 0) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
  for (int i = 0; i < 3; ++i) {
    if (uids[i] != uid || gids[i] != gid) {
      Fail(error, v1::START_STEP_SETUP, EPERM);
    }
  }
  // Set in PID 1 already; this keeps the promise even if that is ever forgotten.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
}

// Raising it needs no privilege. A vforked child changes its own only, not its parent's.
void RaiseOomScore(int adjustment, StartError* error) {
  char text[16];
  int length = 0;
  int left = adjustment < 0 ? 0 : adjustment;
  char digits[12];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + left % 10);
    left /= 10;
  } while (left != 0);
  while (count > 0) {
    text[length++] = digits[--count];
  }
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
  // EACCES: the container's is higher than this already.
  if (write(fd, text, length) < 0 && errno != EACCES) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
  close(fd);
}

void LimitResources(const Launch& launch, StartError* error) {
  RaiseOomScore(launch.header.oom_score_adj, error);
  if (launch.header.nice > 0) {
    errno = 0;
    const int now = getpriority(PRIO_PROCESS, 0);
    if (setpriority(PRIO_PROCESS, 0, now + launch.header.nice) != 0) {
      Fail(error, v1::START_STEP_SETUP, errno);
    }
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
  if (limit.rlim_max > launch.header.open_files) {
    limit.rlim_max = launch.header.open_files;
  }
  limit.rlim_cur = limit.rlim_max;
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || setrlimit(RLIMIT_CORE, &no_core) != 0) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
}

// Executes `program`, by the shell if it is a script without a first line. Returns if it cannot.
void Execute(const Launch& launch, const char* program) {
  execve(program, launch.argv, launch.envp);
  if (errno == ENOEXEC) {
    char** argv = launch.argv - 1;
    char* const first = launch.argv[0];
    argv[0] = const_cast<char*>("sh");
    argv[1] = const_cast<char*>(program);
    execve("/bin/sh", argv, launch.envp);
    launch.argv[0] = first;
    errno = ENOEXEC;
  }
}

[[noreturn]] void FindAndExecute(const Launch& launch, StartError* error) {
  const char* name = launch.argv[0];
  if (strchr(name, '/') != nullptr) {
    Execute(launch, name);
    Fail(error, v1::START_STEP_EXEC, errno);
  }
  const size_t name_bytes = strlen(name);
  if (name_bytes == 0) {
    Fail(error, v1::START_STEP_EXEC, ENOENT);
  }
  char candidate[PATH_MAX];
  int best = ENOENT;
  for (const char* at = launch.path; at != nullptr;) {
    const char* end = strchr(at, ':');
    const size_t bytes = end == nullptr ? strlen(at) : static_cast<size_t>(end - at);
    if (bytes + name_bytes + 3 <= sizeof candidate) {
      memcpy(candidate, at, bytes);
      size_t length = bytes;
      if (bytes == 0) {
        candidate[length++] = '.';
      }
      candidate[length++] = '/';
      memcpy(candidate + length, name, name_bytes + 1);
      Execute(launch, candidate);
      if (errno == EACCES) {
        best = EACCES;  // as execvp: go on looking, but remember it
      } else if (errno != ENOENT && errno != ENOTDIR && errno != ESTALE && errno != ENODEV &&
                 errno != ETIMEDOUT) {
        Fail(error, v1::START_STEP_EXEC, errno);
      }
    }
    at = end == nullptr ? nullptr : end + 1;
  }
  Fail(error, v1::START_STEP_EXEC, best);
}

[[noreturn]] void RunCommand(const Launch& launch, StartError* error) {
  // A session of its own: signals of other commands' terminals and groups do not reach it.
  if (setsid() < 0) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
  if (launch.header.terminal != 0 && ioctl(launch.fds[0], TIOCSCTTY, 0) != 0) {
    Fail(error, v1::START_STEP_SETUP, errno);
  }
  for (int i = 0; i < 3; ++i) {
    if (dup2(launch.fds[i], i) < 0) {
      Fail(error, v1::START_STEP_SETUP, errno);
    }
  }
  CloseFrom(3);
  LimitResources(launch, error);
  TakeToolIdentity(launch, error);
  // After the identity: the tool must be allowed to enter, not PID 1.
  if (chdir(launch.cwd) != 0) {
    Fail(error, v1::START_STEP_CWD, errno);
  }
  FindAndExecute(launch, error);
}

// Starts the command and reports it. Returns its pid, or 0.
[[gnu::noinline]] pid_t Start(const Launch& launch) {
  StartError error{.error = 0, .step = 0};
  const pid_t pid = vfork();
  if (pid == 0) {
    RunCommand(launch, &error);
  }
  if (pid < 0) {
    Send({ReportKind::kFailed, 0, errno, v1::START_STEP_FORK, 1});
    return 0;
  }
  if (error.error != 0) {
    int status = 0;
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {
    }
    Send({ReportKind::kFailed, 0, error.error, error.step, 1});
    return 0;
  }
  Send({ReportKind::kStarted, pid, 0, 0, 0});
  return pid;
}

// Waits until neither the command nor anything below it is left.
void Reap(pid_t command) {
  bool exited = false;
  for (;;) {
    // Looked at before it is reaped: when everything is killed at once, a wait that reaps takes the
    // status with it although the reaper dies inside the call, and PID 1 could not find it any
    // more.
    siginfo_t child{};
    if (waitid(P_ALL, 0, &child, WEXITED | WNOWAIT | __WALL) != 0) {
      if (errno == EINTR) {
        continue;
      }
      break;  // ECHILD
    }
    int status = 0;
    const pid_t pid = waitpid(child.si_pid, &status, __WALL);
    if (pid != command || exited) {
      continue;
    }
    exited = true;
    // One report if nothing else is left, which is the common case.
    int other = 0;
    pid_t more = 0;
    do {
      more = waitpid(-1, &other, __WALL | WNOHANG);
    } while (more > 0 || (more < 0 && errno == EINTR));
    const bool empty = more < 0;
    Send({ReportKind::kExited, command, status, 0, empty ? 1U : 0U});
    if (empty) {
      return;
    }
  }
  Send({ReportKind::kEmpty, command, 0, 0, 1});
}

// Finds the strings in the body and makes the vectors. False if the packet is not sound.
bool Unpack(Launch& launch, char* body) {
  const LaunchHeader& header = launch.header;
  if (header.argc == 0 || header.body_bytes == 0 || body[header.body_bytes - 1] != '\0') {
    return false;
  }
  const size_t slots = static_cast<size_t>(header.argc) + header.envc + 3;
  launch.vector_map_bytes = slots * sizeof(char*);
  launch.vector_map = mmap(nullptr, launch.vector_map_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (launch.vector_map == MAP_FAILED) {
    launch.vector_map = nullptr;
    return false;
  }
  char* at = body;
  char* const end = body + header.body_bytes;
  launch.cwd = at;
  at += strlen(at) + 1;
  char** slot = static_cast<char**>(launch.vector_map) + 1;
  launch.argv = slot;
  for (uint32_t i = 0; i < header.argc; ++i) {
    if (at >= end) {
      return false;
    }
    *slot++ = at;
    at += strlen(at) + 1;
  }
  *slot++ = nullptr;
  launch.envp = slot;
  for (uint32_t i = 0; i < header.envc; ++i) {
    if (at >= end) {
      return false;
    }
    if (strncmp(at, "PATH=", 5) == 0) {
      launch.path = at + 5;
    }
    *slot++ = at;
    at += strlen(at) + 1;
  }
  *slot = nullptr;
  return true;
}

// Takes one launch off the socket. Ends the process when the socket has ended.
bool ReceiveLaunch(Launch& launch, char* packet) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxFds)];
  iovec piece{.iov_base = packet, .iov_len = kMaxLaunchPacket};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t bytes = 0;
  do {
    bytes = recvmsg(kSocket, &message, MSG_CMSG_CLOEXEC);
  } while (bytes < 0 && errno == EINTR);
  if (bytes <= 0) {
    _exit(0);
  }
  const cmsghdr* rights = CMSG_FIRSTHDR(&message);
  if (rights != nullptr && rights->cmsg_type == SCM_RIGHTS) {
    launch.fd_count = static_cast<int>((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(launch.fds, CMSG_DATA(rights), launch.fd_count * sizeof(int));
  }
  if (bytes < static_cast<ssize_t>(sizeof(LaunchHeader)) || launch.fd_count < 3 ||
      (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return false;
  }
  memcpy(&launch.header, packet, sizeof(LaunchHeader));
  char* body = packet + sizeof(LaunchHeader);
  if (launch.header.in_memfd != 0) {
    if (launch.fd_count != 4) {
      return false;
    }
    launch.body_map_bytes = launch.header.body_bytes;
    launch.body_map =
        mmap(nullptr, launch.body_map_bytes, PROT_READ, MAP_PRIVATE, launch.fds[3], 0);
    if (launch.body_map == MAP_FAILED) {
      launch.body_map = nullptr;
      return false;
    }
    body = static_cast<char*>(launch.body_map);
  } else if (sizeof(LaunchHeader) + launch.header.body_bytes != static_cast<size_t>(bytes)) {
    return false;
  }
  return Unpack(launch, body);
}

void Release(const Launch& launch) {
  for (int i = 0; i < launch.fd_count; ++i) {
    close(launch.fds[i]);
  }
  if (launch.body_map != nullptr) {
    munmap(launch.body_map, launch.body_map_bytes);
  }
  if (launch.vector_map != nullptr) {
    munmap(launch.vector_map, launch.vector_map_bytes);
  }
}

[[noreturn]] void RunReaper(int socket) {
  if (dup2(socket, kSocket) < 0) {
    _exit(1);
  }
  // Fails on a kernel that is not Linux's.
  const bool subreaper = prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0;
  CloseFrom(kSocket + 1);
  fcntl(kSocket, F_SETFD, FD_CLOEXEC);
  signal(SIGCHLD, SIG_DFL);
  prctl(PR_SET_NAME, "creel-reaper", 0, 0, 0);
  Send({ReportKind::kReady, static_cast<pid_t>(syscall(SYS_getpid)), 0, 0, 0});
  static char packet[kMaxLaunchPacket];
  for (;;) {
    Launch launch{};
    const bool sound = ReceiveLaunch(launch, packet);
    pid_t command = 0;
    if (sound && !subreaper && launch.header.mark == 0) {
      // What it leaves behind could not be followed.
      Send({ReportKind::kFailed, 0, EINVAL, v1::START_STEP_FORK, 1});
    } else if (sound) {
      command = Start(launch);
    } else {
      Send({ReportKind::kFailed, 0, EINVAL, v1::START_STEP_SETUP, 1});
    }
    Release(launch);  // before waiting: the reader must see the end of its pipes
    if (command > 0) {
      Reap(command);
    }
  }
}

// The next descriptor to serve; -1 when PID 1 has closed its end.
int ReceiveSocket(int socket) {
  char byte = 0;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  iovec piece{.iov_base = &byte, .iov_len = 1};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t bytes = 0;
  do {
    bytes = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (bytes < 0 && errno == EINTR);
  const cmsghdr* rights = bytes > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (rights == nullptr) {
    return -1;
  }
  int fd = -1;
  memcpy(&fd, CMSG_DATA(rights), sizeof fd);
  return fd;
}

}  // namespace

void RunNursery(int socket) {
  // All that PID 1 held is dropped here, once: the link, other commands' pipes, the key's place.
  if (socket != kSocket && dup2(socket, kSocket) < 0) {
    _exit(1);
  }
  CloseFrom(kSocket + 1);
  // Numbers 0 to 2 must be taken, so that no descriptor of a launch gets one of them.
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) {
    _exit(1);
  }
  for (int fd = 0; fd < kSocket; ++fd) {
    dup2(null, fd);
  }
  if (null > kSocket) {
    close(null);
  }
  fcntl(kSocket, F_SETFD, FD_CLOEXEC);
  setsid();
  umask(022);
  prctl(PR_SET_NAME, "creel-nursery", 0, 0, 0);
  for (int number = 1; number < NSIG; ++number) {
    signal(number, SIG_DFL);
  }
  signal(SIGCHLD, SIG_IGN);  // reapers that end leave no zombie
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // The socket moves up so that a reaper can have its own as number 3.
  const int own = fcntl(kSocket, F_DUPFD_CLOEXEC, 10);
  if (own < 0) {
    _exit(1);
  }
  close(kSocket);
  for (;;) {
    const int fd = ReceiveSocket(own);
    if (fd < 0) {
      _exit(0);
    }
    const pid_t pid = _Fork();
    if (pid == 0) {
      RunReaper(fd);
    }
    if (pid < 0) {
      // The pid tells that there is no reaper at all.
      const Report report{ReportKind::kFailed, -1, errno, v1::START_STEP_FORK, 1};
      send(fd, &report, sizeof report, MSG_NOSIGNAL);
    }
    close(fd);
  }
}

}  // namespace creel::shim
