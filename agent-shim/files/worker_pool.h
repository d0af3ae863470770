#pragma once

#include <deque>
#include <functional>

#include "absl/status/status.h"
#include "agent-shim/files/identity.h"
#include "supervisor/base/mutex.h"

namespace creel::shim {

// Up to `max_threads` threads that have become the tool for good and do the blocking work of file
// calls. They are started when there is work and end after two idle seconds, so that an idle shim
// pays nothing for them. Thread-safe.
class WorkerPool {
 public:
  // Gets OK, or the reason why the thread does not have the tool's identity; then it must not
  // touch files.
  using Work = std::function<void(const absl::Status& identity)>;

  WorkerPool(ToolIdentity tool, int max_threads) : tool_(tool), max_threads_(max_threads) {}
  // Runs what was submitted, then waits for the threads to end.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Never blocks. If not one thread can be started, `work` is run here with that error.
  void Submit(Work work);

  // For tests and figures.
  [[nodiscard]] int threads() const;

 private:
  static void* ThreadMain(void* pool);
  void Run();
  absl::Status StartThread();

  const ToolIdentity tool_;
  const int max_threads_;
  mutable Mutex mu_;
  CondVar work_or_stop_;
  CondVar thread_ended_;
  std::deque<Work> queue_ ABSL_GUARDED_BY(mu_);
  int threads_ ABSL_GUARDED_BY(mu_) = 0;
  int idle_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace creel::shim
