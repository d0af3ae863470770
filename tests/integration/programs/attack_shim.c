// Does to PID 1 and its threads, and to every process of uid 0, all that could hurt or starve it.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "attempt.h"

static void attack(pid_t pid) {
  char what[128];
  char path[64];
#define TRY(condition, name)                                  \
  do {                                                        \
    snprintf(what, sizeof(what), "%s of %d", name, (int)pid); \
    attempt(condition, what);                                 \
  } while (0)

  const int signals[] = {SIGKILL, SIGSTOP, SIGTERM, SIGSEGV, SIGUSR1, SIGCONT, 0};
  for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); ++i) {
    TRY(kill(pid, signals[i]) == 0, "kill");
    TRY(syscall(SYS_tgkill, 1, pid, signals[i]) == 0, "tgkill");
  }
  TRY(ptrace(PTRACE_ATTACH, pid, 0, 0) == 0, "ptrace attach");
  TRY(ptrace(PTRACE_SEIZE, pid, 0, 0) == 0, "ptrace seize");
  char byte;
  struct iovec local = {&byte, 1};
  struct iovec remote = {(void*)0x400000, 1};
  TRY(syscall(SYS_process_vm_readv, pid, &local, 1, &remote, 1, 0) > 0, "process_vm_readv");
  TRY(syscall(SYS_process_vm_writev, pid, &local, 1, &remote, 1, 0) > 0, "process_vm_writev");
  const char* files[] = {"mem", "environ", "maps", "auxv", "stack", "syscall", "pagemap", "io"};
  for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); ++i) {
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, files[i]);
    const int fd = open(path, O_RDONLY);
    TRY(fd >= 0 && read(fd, &byte, 1) > 0, files[i]);
  }
  const char* links[] = {"root", "cwd", "exe", "fd/0", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7"};
  for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); ++i) {
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, links[i]);
    struct stat info;
    TRY(stat(path, &info) == 0, links[i]);
  }
  // Where descriptors are shown at all (gVisor): a pipe is a command's, and the tool user's own; all
  // else must stay shut.
  for (int fd = 0; fd < 64; ++fd) {
    char target[64] = {0};
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
    if (readlink(path, target, sizeof(target) - 1) > 0 && strncmp(target, "pipe:", 5) != 0 &&
        strncmp(target, "host:", 5) != 0 && strcmp(target, "/dev/null") != 0) {
      TRY(open(path, O_RDONLY | O_NONBLOCK) >= 0, target);
    }
  }
  snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
  const int oom = open(path, O_WRONLY);
  TRY(oom >= 0 && write(oom, "1000", 4) == 4, "oom_score_adj");
  struct rlimit tiny = {1, 1};
  TRY(prlimit(pid, RLIMIT_NOFILE, &tiny, NULL) == 0, "prlimit");
  TRY(prlimit(pid, RLIMIT_CPU, &tiny, NULL) == 0, "prlimit cpu");
  struct rlimit old;
  TRY(prlimit(pid, RLIMIT_NOFILE, NULL, &old) == 0, "prlimit read");
  struct sched_param none = {0};
  TRY(sched_setscheduler(pid, SCHED_IDLE, &none) == 0, "SCHED_IDLE");
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(0, &cpus);
  TRY(sched_setaffinity(pid, sizeof(cpus), &cpus) == 0, "affinity");
  TRY(setpriority(PRIO_PROCESS, (id_t)pid, 19) == 0, "nice");
  TRY(syscall(SYS_ioprio_set, 1, pid, 3 << 13) == 0, "ioprio");
  const int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (pidfd >= 0) {
    for (int fd = 0; fd < 16; ++fd) {
      TRY(syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0, "pidfd_getfd");
    }
    TRY(syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0, "pidfd_send_signal");
  }
  TRY(syscall(SYS_kcmp, pid, getpid(), 0, 0, 0) >= 0, "kcmp");
  TRY(syscall(SYS_move_pages, pid, 0, NULL, NULL, NULL, 0) == 0, "move_pages");
}

int main(void) {
  DIR* processes = opendir("/proc");
  for (struct dirent* each; processes != NULL && (each = readdir(processes)) != NULL;) {
    const pid_t pid = atoi(each->d_name);
    char path[300];
    struct stat info;
    snprintf(path, sizeof(path), "/proc/%d", pid);
    if (pid > 0 && stat(path, &info) == 0 && info.st_uid == 0) {
      attack(pid);
    }
  }
  DIR* threads = opendir("/proc/1/task");
  for (struct dirent* each; threads != NULL && (each = readdir(threads)) != NULL;) {
    if (atoi(each->d_name) > 1) {
      attack(atoi(each->d_name));
    }
  }
  attempt(kill(-1, 0) == 0 && kill(1, 0) == 0, "kill -1 reaching pid 1");
  return broke;
}
