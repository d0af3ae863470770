#pragma once

#include <sys/types.h>

namespace creel::bench {

// Times the bare case, fork, exec and wait, in a small process of its own: forking the benchmark
// itself would time its own page tables, and leave every page of its clients to be copied again.
class Spawner {
 public:
  // Starts `program`, which is spawn_server.c. Throws std::runtime_error.
  explicit Spawner(const char* program);
  ~Spawner();
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  // Runs /bin/true and returns what that took there, in milliseconds. Throws std::runtime_error.
  double SpawnMs();

 private:
  int socket_ = -1;
  pid_t pid_ = -1;
};

}  // namespace creel::bench
