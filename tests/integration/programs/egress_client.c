/* A client for measurements of the way out; the same program runs in a sandbox, through the proxy,
 * and on the host, directly.
 *   egress_client time PORT TARGET HOST COUNT   requests on one connection: median and 95th
 *                                               percentile in milliseconds
 *   egress_client pull PORT TARGET|- BYTES      seconds for that many bytes from a server that only
 *                                               sends; TARGET is asked for by CONNECT first
 *   egress_client hold PORT TARGET COUNT SECONDS [URL HOST STREAMS]  that many tunnels and, of
 *                                               replies that do not end and hold what was masked,
 *                                               STREAMS, which are read; and one half-open request
 *                                               after the other beside them
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int dial(const char* port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
  int yes = 1;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (fd < 0 || connect(fd, (struct sockaddr*)&to, sizeof to) != 0) {
    perror("connect");
    exit(1);
  }
  return fd;
}

static void say(int fd, const char* text) {
  size_t length = strlen(text);
  while (length > 0) {
    ssize_t put = write(fd, text, length);
    if (put <= 0) {
      perror("write");
      exit(1);
    }
    text += put;
    length -= (size_t)put;
  }
}

/* Reads a head, byte by byte as it is short; returns the status. */
static int hear_head(int fd, char* head, size_t size) {
  size_t have = 0;
  while (have + 1 < size) {
    if (read(fd, head + have, 1) != 1) {
      fprintf(stderr, "the connection ended\n");
      exit(1);
    }
    head[++have] = 0;
    if (have >= 4 && memcmp(head + have - 4, "\r\n\r\n", 4) == 0) {
      return atoi(head + 9);
    }
  }
  exit(1);
}

static void tunnel(int fd, const char* target) {
  char text[512];
  snprintf(text, sizeof text, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target);
  say(fd, text);
  char head[4096];
  int status = hear_head(fd, head, sizeof head);
  if (status != 200) {
    fprintf(stderr, "%s\n", head);
    exit(1);
  }
}

/* A reply under way, of which something masked has come. */
static int stream(const char* port, const char* url, const char* host) {
  char text[4096];
  int fd = dial(port);
  snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", url, host);
  say(fd, text);
  int status = hear_head(fd, text, sizeof text);
  if (status != 200) {
    fprintf(stderr, "%s\n", text);
    exit(1);
  }
  size_t have = 0;
  while (have + 1 < sizeof text) {
    ssize_t got = read(fd, text + have, sizeof text - 1 - have);
    if (got <= 0) {
      break;
    }
    have += (size_t)got;
    text[have] = 0;
    if (strstr(text, "********") != NULL) {
      fcntl(fd, F_SETFL, O_NONBLOCK);
      return fd;
    }
  }
  fprintf(stderr, "nothing masked came\n");
  exit(1);
}

static int smaller(const void* a, const void* b) {
  double x = *(const double*)a;
  double y = *(const double*)b;
  return (x > y) - (x < y);
}

/* A reply comes in one piece, or nearly: its length is told by the head. */
static void request(int fd, const char* text) {
  static char reply[65536];
  size_t have = 0;
  say(fd, text);
  for (;;) {
    ssize_t got = read(fd, reply + have, sizeof reply - 1 - have);
    if (got <= 0) {
      fprintf(stderr, "the connection ended: %s\n", reply);
      exit(1);
    }
    have += (size_t)got;
    reply[have] = 0;
    char* end = strstr(reply, "\r\n\r\n");
    char* length = strstr(reply, "Content-Length: ");
    if (end != NULL && length != NULL &&
        have >= (size_t)(end + 4 - reply) + (size_t)atol(length + 16)) {
      if (strncmp(reply, "HTTP/1.1 200", 12) != 0) {
        fprintf(stderr, "%s\n", reply);
        exit(1);
      }
      return;
    }
  }
}

int main(int argc, char** argv) {
  if (argc == 6 && strcmp(argv[1], "time") == 0) {
    char text[512];
    int count = atoi(argv[5]);
    double* times = calloc((size_t)count, sizeof *times);
    int fd = dial(argv[2]);
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", argv[3], argv[4]);
    request(fd, text);
    for (int i = 0; i < count; ++i) {
      double begin = now();
      request(fd, text);
      times[i] = (now() - begin) * 1e3;
    }
    qsort(times, (size_t)count, sizeof *times, smaller);
    printf("%.4f %.4f\n", times[count / 2], times[count * 95 / 100]);
    return 0;
  }
  if (argc == 5 && strcmp(argv[1], "pull") == 0) {
    static char buffer[1 << 18];
    int fd = dial(argv[2]);
    if (strcmp(argv[3], "-") != 0) {
      tunnel(fd, argv[3]);
    }
    double left = atof(argv[4]);
    double begin = now();
    while (left > 0) {
      ssize_t got = read(fd, buffer, sizeof buffer);
      if (got <= 0) {
        fprintf(stderr, "the connection ended with %.0f bytes left\n", left);
        return 1;
      }
      left -= (double)got;
    }
    printf("%.4f\n", now() - begin);
    return 0;
  }
  if ((argc == 6 || argc == 9) && strcmp(argv[1], "hold") == 0) {
    static char buffer[1 << 16];
    int count = atoi(argv[4]);
    int streams = argc == 9 ? atoi(argv[8]) : 0;
    int* replies = calloc((size_t)streams + 1, sizeof *replies);
    for (int i = 0; i < streams; ++i) {
      replies[i] = stream(argv[2], argv[6], argv[7]);
    }
    for (int i = 0; i < count; ++i) {
      tunnel(dial(argv[2]), argv[3]);
    }
    puts("held");
    fflush(stdout);
    double end = now() + atof(argv[5]);
    int half[64] = {0};
    int next = 0;
    for (int i = 0; now() < end; i = (i + 1) % 64) {
      if (streams > 0) {
        next = (next + 1) % streams;
        if (read(replies[next], buffer, sizeof buffer) == 0) {
          fprintf(stderr, "a reply ended\n");
          return 1;
        }
      }
      if (half[i] > 0) {
        close(half[i]);
      }
      half[i] = dial(argv[2]);
      say(half[i], "GET http://");
      usleep(1000);
    }
    return 0;
  }
  fprintf(stderr, "usage: see the source\n");
  return 2;
}
