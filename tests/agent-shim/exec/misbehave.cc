// A child that does one unfriendly thing, by name. Every process of it that lives holds a shared
// lock on the file given as the second argument, so that a test can tell whether one is left.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

void HoldMark(const char* path) {
  const int fd = open(path, O_RDWR | O_CREAT, 0666);
  if (fd < 0 || flock(fd, LOCK_SH) != 0) {
    perror("mark");
    _exit(99);
  }
}

[[noreturn]] void Sleep() {
  for (;;) {
    pause();
  }
}

void Detach() {
  if (fork() != 0) {
    _exit(0);
  }
  setsid();
  if (fork() != 0) {
    _exit(0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    return 98;
  }
  const std::string_view mode = argv[1];
  HoldMark(argv[2]);
  if (mode == "sleep") {
    Sleep();
  }
  if (mode == "ignore-term") {
    signal(SIGTERM, SIG_IGN);
    puts("ready");
    fflush(stdout);
    Sleep();
  }
  if (mode == "stopped") {
    signal(SIGTERM, SIG_IGN);
    kill(getpid(), SIGSTOP);
    Sleep();
  }
  if (mode == "setsid") {
    if (fork() == 0) {
      setsid();
      Sleep();
    }
    Sleep();
  }
  if (mode == "double-fork") {
    if (fork() == 0) {
      clearenv();
      Detach();
      signal(SIGTERM, SIG_IGN);
      Sleep();
    }
    Sleep();
  }
  if (mode == "daemon") {  // ends by itself and leaves one behind, with its output open
    if (fork() == 0) {
      Detach();
      if (fork() == 0) {  // never reaped, and where it can be, in a user namespace of its own
        unshare(CLONE_NEWUSER);
        _exit(0);
      }
      usleep(300'000);
      puts("later");
      fflush(stdout);
      Sleep();
    }
    puts("now");
    return 0;
  }
  if (mode == "outrun") {  // forks and ends faster than /proc can be read
    if (fork() != 0) {
      Sleep();
    }
    signal(SIGTERM, SIG_IGN);
    setsid();
    for (;;) {
      if (fork() > 0) {
        _exit(0);
      }
      setsid();
    }
  }
  if (mode == "new-user-ns") {  // where its groups, if it wants, are its own affair
    if (fork() == 0) {
      unshare(CLONE_NEWUSER);
      Detach();
      signal(SIGTERM, SIG_IGN);
      Sleep();
    }
    Sleep();
  }
  if (mode == "brief") {  // as `daemon`, but what it leaves ends too
    if (fork() == 0) {
      Detach();
      usleep(700'000);
    }
    return 0;
  }
  if (mode == "subreaper") {
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    if (fork() == 0) {
      Detach();
      Sleep();
    }
    Sleep();
  }
  return 97;
}
