#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace creel {

// A few threads for calls that block (the engine, a session's opening), which no gRPC callback may
// do. They are made when there is work, and end when there has been none for a while. Thread-safe.
class WorkerPool {
 public:
  explicit WorkerPool(size_t max_threads, size_t max_waiting = 256);
  // Waits until all jobs that were taken have run.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False: too many jobs wait already, and `job` will not run.
  [[nodiscard]] bool Submit(std::function<void()> job);

 private:
  struct State;
  // Shared with the threads, as the last of them may still hold it when the pool is gone.
  std::shared_ptr<State> state_;
};

}  // namespace creel
