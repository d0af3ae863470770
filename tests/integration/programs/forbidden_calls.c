// Tries the system calls and socket families that the profile takes away.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attempt.h"

int main(void) {
  const struct {
    int family, type, protocol;
    const char* name;
  } sockets[] = {
      {40, SOCK_STREAM, 0, "AF_VSOCK"},          {AF_PACKET, SOCK_RAW, 0, "AF_PACKET"},
      {38, SOCK_SEQPACKET, 0, "AF_ALG"},         {31, SOCK_RAW, 0, "AF_BLUETOOTH"},
      {16, SOCK_RAW, NETLINK_AUDIT, "audit"},    {16, SOCK_RAW, NETLINK_KOBJECT_UEVENT, "uevent"},
      {16, SOCK_RAW, NETLINK_NETFILTER, "nf"},   {29, SOCK_RAW, 1, "AF_CAN"},
      {21, SOCK_SEQPACKET, 0, "AF_RDS"},         {30, SOCK_SEQPACKET, 0, "AF_TIPC"},
      {AF_INET, SOCK_RAW, IPPROTO_ICMP, "raw"},  {15, SOCK_RAW, 2, "AF_KEY"},
      {44, SOCK_RAW, 0, "AF_XDP"},               {9, SOCK_SEQPACKET, 0, "AF_X25"},
  };
  for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); ++i) {
    attempt(socket(sockets[i].family, sockets[i].type, sockets[i].protocol) >= 0, sockets[i].name);
  }
  int pair[2];
  attempt(socketpair(40, SOCK_STREAM, 0, pair) == 0, "AF_VSOCK pair");
  char buffer[256] = {0};
  attempt(syscall(SYS_io_uring_setup, 8, buffer) >= 0, "io_uring_setup");
  attempt(syscall(SYS_bpf, 5, buffer, sizeof(buffer)) >= 0, "bpf");
  attempt(syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0) >= 0, "perf_event_open");
  attempt(syscall(SYS_userfaultfd, 0) >= 0, "userfaultfd");
  attempt(syscall(SYS_keyctl, 0, -3, 0, 0, 0) >= 0, "keyctl");
  attempt(syscall(SYS_add_key, "user", "a", "b", 1, -3) >= 0, "add_key");
  attempt(mount("none", "/tmp", "tmpfs", 0, NULL) == 0, "mount");
  attempt(umount2("/tmp", MNT_DETACH) == 0, "umount");
  attempt(unshare(CLONE_NEWUSER) == 0, "unshare user");
  attempt(unshare(CLONE_NEWNS) == 0, "unshare mount");
  attempt(unshare(CLONE_NEWNET) == 0, "unshare net");
  const long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) {
    _exit(0);
  }
  attempt(child > 0, "clone with a user namespace");
  const int own = open("/proc/self/ns/pid", O_RDONLY);
  attempt(syscall(SYS_setns, own, 0) == 0, "setns");
  attempt(syscall(SYS_pivot_root, "/", "/tmp") == 0, "pivot_root");
  attempt(chroot("/tmp") == 0, "chroot");
  attempt(syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, 0) >= 0, "open_by_handle_at");
  attempt(syscall(SYS_init_module, buffer, 1, "") == 0, "init_module");
  attempt(syscall(SYS_kexec_load, 0, 0, 0, 0) == 0, "kexec_load");
  attempt(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0) == 0, "reboot");
  attempt(syscall(SYS_swapon, "/tmp/x", 0) == 0, "swapon");
  attempt(syscall(SYS_acct, "/tmp/x") == 0, "acct");
  attempt(syscall(SYS_syslog, 3, buffer, sizeof(buffer)) >= 0, "syslog");
  attempt(syscall(SYS_fsopen, "tmpfs", 0) >= 0, "fsopen");
  attempt(syscall(SYS_open_tree, AT_FDCWD, "/", 1) >= 0, "open_tree");
  attempt(syscall(SYS_iopl, 3) == 0, "iopl");
  attempt(syscall(SYS_settimeofday, buffer, 0) == 0, "settimeofday");
  attempt(sethostname("x", 1) == 0, "sethostname");

  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
  inet_pton(AF_INET, "192.0.2.1", &address.sin_addr);
  const int tcp = socket(AF_INET, SOCK_STREAM, 0);
  attempt(tcp >= 0 && connect(tcp, (struct sockaddr*)&address, sizeof(address)) == 0, "tcp out");
  const int udp = socket(AF_INET, SOCK_DGRAM, 0);
  attempt(udp >= 0 && sendto(udp, "x", 1, 0, (struct sockaddr*)&address, sizeof(address)) == 1,
          "udp out");
  return broke;
}
