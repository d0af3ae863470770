// Fills a folder with so many names, cheaply: hard links to few files.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char** argv) {
  const long count = argc > 2 ? atol(argv[2]) : 1000000;
  char name[64];
  char base[64] = "";
  if (argc < 2 || (mkdir(argv[1], 0755) != 0 && errno != EEXIST) || chdir(argv[1]) != 0) {
    return 2;
  }
  for (long i = 0; i < count; ++i) {
    snprintf(name, sizeof(name), "%ld", i);
    if (base[0] != '\0' && link(base, name) == 0) {
      continue;
    }
    // The file has as many names as the file system lets it have.
    const int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0) {
      perror(name);
      return 1;
    }
    close(fd);
    snprintf(base, sizeof(base), "%s", name);
  }
  printf("%ld names\n", count);
  return 0;
}
