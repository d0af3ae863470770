#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <thread>

#include "supervisor/base/mutex.h"

namespace creel {

// Runs jobs that block, first come, first served, on threads that are made when they are needed
// and end when they have been idle. Thread-safe.
class JobThreads {
 public:
  explicit JobThreads(size_t max_threads = 16,
                      std::chrono::milliseconds idle = std::chrono::seconds(10));
  // Stops.
  ~JobThreads();
  JobThreads(const JobThreads&) = delete;
  JobThreads& operator=(const JobThreads&) = delete;

  // Queues a job. False after Stop: it will not run.
  [[nodiscard]] bool Post(std::function<void()> job);
  // Takes no more jobs, runs those that are queued, and returns when none runs any more. Not from
  // a job.
  void Stop();
  [[nodiscard]] size_t threads() const;

 private:
  using Threads = std::list<std::thread>;

  void Work(Threads::iterator self);

  const size_t max_threads_;
  const std::chrono::milliseconds idle_;
  mutable Mutex mu_;
  CondVar changed_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mu_);
  Threads threads_ ABSL_GUARDED_BY(mu_);
  // Have done their work, or are about to return; to be joined by whoever comes next.
  Threads ended_ ABSL_GUARDED_BY(mu_);
  size_t waiting_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace creel
