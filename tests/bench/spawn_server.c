// The bare case of the benchmark: for every byte on stdin forks, executes /bin/true and waits, and
// writes what that took as a double, in milliseconds; negative if it failed. Small and static, as
// what a fork costs depends on who forks.
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

int main(void) {
  char asked;
  while (read(0, &asked, 1) == 1) {
    const double begin = now_ms();
    const pid_t child = fork();
    if (child == 0) {
      execl("/bin/true", "/bin/true", (char*)0);
      _exit(127);
    }
    int status = -1;
    double took = -1;
    if (child > 0 && waitpid(child, &status, 0) == child && status == 0) {
      took = now_ms() - begin;
    }
    if (write(1, &took, sizeof took) != sizeof took) {
      return 1;
    }
  }
  return 0;
}
