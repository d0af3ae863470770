// Takes inotify instances until it gets no more, says how many, and holds them.
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

int main(void) {
  int count = 0;
  for (int parent = 1; parent;) {
    while (inotify_init() >= 0) {
      ++count;
    }
    // The descriptors of one process run out first: go on in a child.
    parent = count % 900 == 0 && count > 0 && count < 4000 && fork() == 0;
  }
  printf("%d\n", count);
  fflush(stdout);
  sleep(30);
  return 0;
}
