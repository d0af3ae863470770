// Tries to become somebody, to raise a capability, and to leave a set-id file behind.
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attempt.h"

static int set_id(const char* path) {
  struct stat info;
  return lstat(path, &info) == 0 && (info.st_mode & (S_ISUID | S_ISGID)) != 0;
}

int main(void) {
  attempt(getuid() == 0 || geteuid() == 0, "running as uid 0");
  attempt(setuid(0) == 0, "setuid");
  attempt(setresuid(0, 0, 0) == 0, "setresuid");
  attempt(setgid(0) == 0, "setgid");
  gid_t none[1] = {0};
  attempt(setgroups(1, none) == 0, "setgroups");
  attempt(getgroups(0, NULL) > 0, "supplementary groups");
  attempt(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1, "no_new_privs off");

  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{0}};
  syscall(SYS_capget, &header, data);
  attempt((data[0].effective | data[0].permitted | data[0].inheritable | data[1].effective |
           data[1].permitted | data[1].inheritable) != 0,
          "holding a capability");
  data[0].effective = data[0].permitted = 0xffffffff;
  attempt(syscall(SYS_capset, &header, data) == 0, "capset");
  for (int cap = 0; cap < 41; ++cap) {
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1) {
      attempt(1, "an ambient capability");
    }
  }

  const char* names[] = {"set1", "set2", "set3", "set4", "set5", "set6", "set7"};
  const int plain = open(names[0], O_CREAT | O_RDWR, 0755);
  chmod(names[0], 04755);
  fchmod(plain, 06755);
  syscall(SYS_fchmodat, AT_FDCWD, names[0], 02755);
  syscall(452 /* fchmodat2 */, AT_FDCWD, names[0], 04755, 0);
  attempt(set_id(names[0]), "chmod to set-id");
  close(open(names[1], O_CREAT | O_RDWR, 04755));
  attempt(set_id(names[1]), "open with set-id");
  syscall(SYS_creat, names[2], 06755);
  attempt(set_id(names[2]), "creat with set-id");
  mknod(names[3], S_IFREG | 04755, 0);
  attempt(set_id(names[3]), "mknod with set-id");
  struct {
    uint64_t flags, mode, resolve;
  } how = {O_CREAT | O_RDWR, 04755, 0};
  syscall(SYS_openat2, AT_FDCWD, names[4], &how, sizeof(how));
  attempt(set_id(names[4]), "openat2 with set-id");
  mkdir(names[5], 02755);
  attempt(set_id(names[5]), "mkdir with set-id");
  attempt(mknod(names[6], S_IFBLK | 0600, (8 << 8)) == 0, "a block device");
  return broke;
}
