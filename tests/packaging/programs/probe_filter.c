// Prints what the seccomp filter that it runs under says to each system call, asked with all
// arguments zero: `NAME allowed` or `NAME refused ERRNO`. None is carried out. A filter of its own,
// of lower precedence than a refusal, hands what is allowed to a thread without that filter, which
// answers with an error that no filter and no kernel gives.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kLast = 470, kAllowed = 4000 };

static atomic_int listener = -1;

static void* AnswerAll(void* unused) {
  (void)unused;
  while (atomic_load(&listener) < 0) {
  }
  for (;;) {
    struct seccomp_notif asked;
    memset(&asked, 0, sizeof asked);
    if (ioctl(atomic_load(&listener), SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) {
      if (errno == EINTR) {
        continue;
      }
      return NULL;
    }
    struct seccomp_notif_resp answer = {.id = asked.id, .error = -kAllowed};
    if (ioctl(atomic_load(&listener), SECCOMP_IOCTL_NOTIF_SEND, &answer) != 0) {
      return NULL;
    }
  }
}

int main(void) {
  // What this program needs to tell its result and to end is let through.
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
  };
  struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
  static char buffer[1 << 16];
  setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  char* names[kLast];
  int answers[kLast];
  for (int nr = 0; nr < kLast; ++nr) {
    // Numbers without a name are left alone: the kernel has traps of its own there.
    names[nr] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
  }
  pthread_t thread;
  if (pthread_create(&thread, NULL, AnswerAll, NULL) != 0 ||
      prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return 1;
  }
  const long fd =
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  if (fd < 0) {
    perror("install a filter");
    return 1;
  }
  atomic_store(&listener, (int)fd);
  for (int nr = 0; nr < kLast; ++nr) {
    answers[nr] = kAllowed;
    if (names[nr] != NULL && nr != SYS_write && nr != SYS_exit_group) {
      const long result = syscall(nr, 0L, 0L, 0L, 0L, 0L, 0L);
      answers[nr] = result == -1 ? errno : 0;
    }
  }
  for (int nr = 0; nr < kLast; ++nr) {
    if (names[nr] != NULL && answers[nr] == kAllowed) {
      printf("%s allowed\n", names[nr]);
    } else if (names[nr] != NULL) {
      printf("%s refused %d\n", names[nr], answers[nr]);
    }
  }
  fflush(stdout);
  _exit(0);
}
