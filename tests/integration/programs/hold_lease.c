// Holds a write lease on the file named, and does not give it up when asked.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char** argv) {
  signal(SIGIO, SIG_IGN);
  const int fd = open(argc > 1 ? argv[1] : "leased", O_CREAT | O_RDWR, 0644);
  if (fd < 0 || write(fd, "leased", 6) != 6 || fcntl(fd, F_SETLEASE, F_WRLCK) != 0) {
    puts("no lease");
    fflush(stdout);
    return 2;
  }
  puts("holding");
  fflush(stdout);
  sleep(60);
  return 0;
}
