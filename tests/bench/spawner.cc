#include "tests/bench/spawner.h"

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

extern char** environ;

namespace creel::bench {

Spawner::Spawner(const char* program) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    throw std::runtime_error("no socket pair");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pair[1], 0);
  posix_spawn_file_actions_adddup2(&actions, pair[1], 1);
  char* const arguments[] = {const_cast<char*>(program), nullptr};
  const int failed = posix_spawn(&pid_, program, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(pair[1]);
  socket_ = pair[0];
  if (failed != 0) {
    throw std::runtime_error("cannot run the bare case");
  }
}

Spawner::~Spawner() {
  close(socket_);
  waitpid(pid_, nullptr, 0);
}

double Spawner::SpawnMs() {
  double took = -1;
  if (write(socket_, "s", 1) != 1 || read(socket_, &took, sizeof took) != sizeof took || took < 0) {
    throw std::runtime_error("the bare command failed");
  }
  return took;
}

}  // namespace creel::bench
