#pragma once

// What every program here shares: it tries things that must not work, says what did, and exits with 0
// if none did.

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int broke = 0;

// `worked` is whether the attempt succeeded.
static inline void attempt(int worked, const char* what) {
  if (worked) {
    printf("BROKE: %s\n", what);
    broke = 1;
  } else {
    printf("held: %s (%s)\n", what, strerror(errno));
  }
  errno = 0;
}
