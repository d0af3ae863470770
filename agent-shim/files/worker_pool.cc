#include "agent-shim/files/worker_pool.h"

#include <pthread.h>

#include <chrono>
#include <utility>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr size_t kStackBytes = size_t{256} * 1024;
constexpr auto kIdleFor = std::chrono::seconds(2);

}  // namespace

WorkerPool::~WorkerPool() {
  MutexLock lock(mu_);
  stopping_ = true;
  work_or_stop_.SignalAll();
  while (threads_ > 0) {
    thread_ended_.Wait(mu_);
  }
}

void WorkerPool::Submit(Work work) {
  absl::Status started;
  {
    MutexLock lock(mu_);
    queue_.push_back(std::move(work));
    if (idle_ >= static_cast<int>(queue_.size())) {
      work_or_stop_.SignalOne();
      return;
    }
    if (threads_ == max_threads_) {
      return;
    }
    ++threads_;
    started = StartThread();
    if (started.ok()) {
      return;
    }
    --threads_;
    if (threads_ > 0) {
      // The others will get to it.
      work_or_stop_.SignalOne();
      return;
    }
    work = std::move(queue_.back());
    queue_.pop_back();
  }
  work(started);
}

int WorkerPool::threads() const {
  MutexLock lock(mu_);
  return threads_;
}

absl::Status WorkerPool::StartThread() {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, ThreadMain, this);
  pthread_attr_destroy(&attributes);
  return error == 0 ? absl::OkStatus() : ErrnoStatus(error, "cannot start a thread for file calls");
}

void* WorkerPool::ThreadMain(void* pool) {
  static_cast<WorkerPool*>(pool)->Run();
  return nullptr;
}

void WorkerPool::Run() {
  const absl::Status identity = BecomeTool(tool_);
  mu_.Lock();
  while (true) {
    if (queue_.empty()) {
      if (stopping_) {
        break;
      }
      const Deadline until = After(kIdleFor);
      ++idle_;
      bool in_time = true;
      while (queue_.empty() && !stopping_ && in_time) {
        in_time = work_or_stop_.WaitUntil(mu_, until);
      }
      --idle_;
      if (queue_.empty()) {
        break;
      }
    }
    Work work = std::move(queue_.front());
    queue_.pop_front();
    mu_.Unlock();
    work(identity);
    // What the work holds ends here, still with the tool's identity.
    work = nullptr;
    mu_.Lock();
  }
  --threads_;
  // Under the lock: once it is free and no thread is left, the pool may be gone.
  thread_ended_.SignalAll();
  mu_.Unlock();
}

}  // namespace creel::shim
