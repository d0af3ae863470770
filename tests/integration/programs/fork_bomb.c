// Makes processes until there are no more to be had, and keeps trying.
#include <unistd.h>

int main(void) {
  while (1) {
    fork();
  }
}
