// Tries to be the shim: connects to its socket, again and again, from many processes.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "attempt.h"

int main(int argc, char** argv) {
  const int seconds = argc > 1 ? atoi(argv[1]) : 1;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, "/run/creel/shim.sock");
  int connected = 0;
  for (int i = 0; i < seconds * 1000; ++i) {
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr*)&address, sizeof(address)) == 0) {
      connected = 1;
    }
    close(fd);
    usleep(1000);
  }
  attempt(connected, "connect to shim.sock");
  attempt(open("/run/creel/mine", O_CREAT | O_RDWR, 0644) >= 0, "a file in /run/creel");
  attempt(unlink("/run/creel/shim.sock") == 0, "unlink shim.sock");
  attempt(chmod("/run/creel", 0777) == 0, "chmod /run/creel");
  attempt(open("/.creel/creel-shim", O_WRONLY) >= 0, "writing to the shim's binary");
  return broke;
}
