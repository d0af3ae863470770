#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <thread>
#include <vector>

#include "supervisor/base/mutex.h"

namespace creel {

// Runs jobs that block, first come, first served, on threads that are made when they are needed
// and end when they have been idle. The thread that became idle last is called first, so that those
// that are not needed end though now and then a job comes. Thread-safe.
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
  // A thread that waits for a job, for as long as it does.
  struct Idler {
    CondVar changed;
    bool called = false;
  };

  void Work(Threads::iterator self);

  const size_t max_threads_;
  const std::chrono::milliseconds idle_;
  mutable Mutex mu_;
  CondVar one_ended_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mu_);
  Threads threads_ ABSL_GUARDED_BY(mu_);
  // Have done their work, or are about to return; to be joined by whoever comes next.
  Threads ended_ ABSL_GUARDED_BY(mu_);
  std::vector<Idler*> idlers_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace creel
