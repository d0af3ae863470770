// Tries system calls that the profile must refuse, and some that it must let through, and prints
// one line for each that went the wrong way. Exit status: how many.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int wrong;

static void Refused(const char* what, long result, int expected) {
  if (result != -1 || errno != expected) {
    printf("%s: result %ld, errno %d, not %d\n", what, result, errno, expected);
    ++wrong;
  }
}

static void Allowed(const char* what, long result) {
  if (result == -1) {
    printf("%s: errno %d\n", what, errno);
    ++wrong;
  }
}

int main(void) {
  struct open_how how = {.flags = O_CREAT | O_WRONLY, .mode = 04755};
  struct iovec vec = {.iov_base = &how, .iov_len = sizeof how};
  char file[] = "/tmp/filtered-XXXXXX";
  int fd = mkstemp(file);
  Allowed("mkstemp", fd);

  Refused("openat2", syscall(SYS_openat2, AT_FDCWD, "/tmp/set-id", &how, sizeof how), ENOSYS);
  Refused("clone3", syscall(SYS_clone3, &how, sizeof how), ENOSYS);
  Refused("open 04755", open("/tmp/set-id", O_CREAT | O_WRONLY, 04755), EPERM);
  Refused("open 02755", open("/tmp/set-id", O_CREAT | O_WRONLY, 02755), EPERM);
  Refused("O_TMPFILE 04755", open("/tmp", O_TMPFILE | O_WRONLY, 04755), EPERM);
  Refused("openat 04755", syscall(SYS_openat, AT_FDCWD, "/tmp/set-id", O_CREAT | O_WRONLY, 04755),
          EPERM);
  Refused("mknod 04755", mknod("/tmp/set-id", S_IFREG | 04755, 0), EPERM);
  Refused("chmod u+s", chmod(file, 04755), EPERM);
  Refused("chmod g+s", chmod(file, 02755), EPERM);
  Refused("fchmod", fchmod(fd, 06755), EPERM);
  Refused("fchmodat", fchmodat(AT_FDCWD, file, 04755, 0), EPERM);
  Refused("chmod with high bits", syscall(SYS_fchmod, fd, 0xffff04755L), EPERM);
  Refused("AF_VSOCK", socket(40, SOCK_STREAM, 0), EPERM);
  Refused("AF_PACKET", socket(AF_PACKET, SOCK_RAW, 0), EPERM);
  Refused("AF_ALG", socket(AF_ALG, SOCK_SEQPACKET, 0), EPERM);
  Refused("NETLINK_AUDIT", socket(AF_NETLINK, SOCK_RAW, 9), EPERM);
  Refused("AF_VSOCK with high bits", syscall(SYS_socket, 0x100000028L, SOCK_STREAM, 0), EPERM);
  Refused("io_uring_setup", syscall(SYS_io_uring_setup, 1, &how), EPERM);
  Refused("io_uring_enter", syscall(SYS_io_uring_enter, -1, 0, 0, 0, 0, 0), EPERM);
  Refused("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0), EPERM);
  Refused("add_key", syscall(SYS_add_key, "user", "a", "b", 1, 0), EPERM);
  Refused("request_key", syscall(SYS_request_key, "user", "a", 0, 0), EPERM);
  Refused("bpf", syscall(SYS_bpf, 0, &how, sizeof how), EPERM);
  Refused("perf_event_open", syscall(SYS_perf_event_open, &how, 0, -1, -1, 0), EPERM);
  Refused("userfaultfd", syscall(SYS_userfaultfd, 0), EPERM);
  Refused("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0), EPERM);
  Refused("process_vm_readv", process_vm_readv(getpid(), &vec, 1, &vec, 1, 0), EPERM);
  Refused("process_vm_writev", process_vm_writev(getpid(), &vec, 1, &vec, 1, 0), EPERM);
  Refused("pidfd_getfd", syscall(SYS_pidfd_getfd, -1, 0, 0), EPERM);
  Refused("unshare user", unshare(CLONE_NEWUSER), EPERM);
  Refused("unshare mount", unshare(CLONE_NEWNS), EPERM);
  Refused("setns", setns(0, 0), EPERM);
  Refused("clone newuser", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), EPERM);
  Refused("mount", syscall(SYS_mount, "a", "/tmp", "tmpfs", 0, 0), EPERM);
  Refused("umount", syscall(SYS_umount2, "/tmp", 0), EPERM);
  Refused("move_mount", syscall(SYS_move_mount, -1, "", -1, "", 0), EPERM);
  Refused("open_tree", syscall(SYS_open_tree, -1, "/", 0), EPERM);
  Refused("fsopen", syscall(SYS_fsopen, "tmpfs", 0), EPERM);
  Refused("pivot_root", syscall(SYS_pivot_root, "/", "/"), EPERM);
  Refused("chroot", chroot("/"), EPERM);
  Refused("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, 0, 0), EPERM);
  Refused("personality", syscall(SYS_personality, 0x0040000), EPERM);
  Refused("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0), EPERM);
  Refused("init_module", syscall(SYS_init_module, 0, 0, ""), EPERM);
  Refused("syslog", syscall(SYS_syslog, 3, 0, 0), EPERM);
  Refused("quotactl", syscall(SYS_quotactl, 0, 0, 0, 0), EPERM);
  Refused("fanotify_init", syscall(SYS_fanotify_init, 0, 0), EPERM);
  Refused("modify_ldt",
#ifdef SYS_modify_ldt
          syscall(SYS_modify_ldt, 0, 0, 0),
#else
          (errno = EPERM, -1),
#endif
          EPERM);

  Allowed("AF_UNIX", socket(AF_UNIX, SOCK_STREAM, 0));
  Allowed("AF_INET", socket(AF_INET, SOCK_STREAM, 0));
  Allowed("AF_INET6", socket(AF_INET6, SOCK_DGRAM, 0));
  Allowed("NETLINK_ROUTE", socket(AF_NETLINK, SOCK_RAW, 0));
  Allowed("inotify", inotify_init1(0));
  Allowed("chmod 1777", chmod(file, 01777));
  Allowed("chmod 0755", fchmodat(AT_FDCWD, file, 0755, 0));
  Allowed("mkfifo", mkfifo("/tmp/filtered-fifo", 0600));
  Allowed("open with a stray mode", syscall(SYS_openat, AT_FDCWD, "/tmp", O_RDONLY, 04755));
  const pid_t child = fork();
  if (child == 0) {
    _exit(0);
  }
  Allowed("fork", child);
  unlink("/tmp/filtered-fifo");
  unlink(file);
  return wrong;
}
