// Leaves processes behind that do not want to end: `survive KIND`. They call themselves
// "creel-survivor" so that a test can look for them.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void linger_as(const char* name) {
  prctl(PR_SET_NAME, name);
  for (int signal_number = 1; signal_number < 65; ++signal_number) {
    signal(signal_number, SIG_IGN);
  }
  for (int fd = 0; fd < 3; ++fd) {
    close(fd);
  }
  while (1) {
    sleep(1);
  }
}

static void linger(void) { linger_as("creel-survivor"); }

// Always moving: each process lives only long enough to make the next one.
static void run_away(void) {
  prctl(PR_SET_NAME, "creel-survivor");
  while (1) {
    setsid();
    const pid_t child = fork();
    if (child != 0) {
      _exit(0);
    }
  }
}

int main(int argc, char** argv) {
  const char* kind = argc > 1 ? argv[1] : "";
  if (strcmp(kind, "again") == 0) {
    linger();
  }
  if (strcmp(kind, "ignore") == 0) {
    linger();
  }
  if (strcmp(kind, "setsid") == 0) {
    if (fork() == 0) {
      setsid();
      linger();
    }
  } else if (strcmp(kind, "double-fork") == 0) {
    if (fork() == 0) {
      setsid();
      if (fork() == 0) {
        linger();
      }
      _exit(0);
    }
  } else if (strcmp(kind, "empty-env") == 0) {
    if (fork() == 0) {
      setsid();
      char* arguments[] = {argv[0], "again", NULL};
      char* nothing[] = {NULL};
      execve(argv[0], arguments, nothing);
      _exit(127);
    }
  } else if (strcmp(kind, "kill-parent") == 0) {
    // Whoever watches over this command.
    kill(getppid(), SIGKILL);
    if (fork() == 0) {
      setsid();
      linger();
    }
  } else if (strcmp(kind, "stopped") == 0) {
    if (fork() == 0) {
      setsid();
      prctl(PR_SET_NAME, "creel-survivor");
      raise(SIGSTOP);
      linger();
    }
  } else if (strcmp(kind, "false-name") == 0) {
    // For those who read /proc/PID/status line by line.
    if (fork() == 0) {
      setsid();
      linger_as("x\nState:\tZ");
    }
  } else if (strcmp(kind, "new-user-ns") == 0) {
    // Where it may call itself what it likes, if it gets one.
    if (fork() == 0) {
      setsid();
      const int made = unshare(CLONE_NEWUSER);
      if (made == 0) {
        syscall(SYS_setgroups, 0, NULL);
        unshare(CLONE_NEWPID);
      }
      if (fork() == 0) {
        linger();
      }
      _exit(0);
    }
  } else if (strcmp(kind, "run-away") == 0) {
    for (int i = 0; i < 4; ++i) {
      if (fork() == 0) {
        run_away();
      }
    }
  } else {
    return 2;
  }
  while (1) {
    sleep(1);
  }
}
