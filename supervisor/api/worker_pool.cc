#include "supervisor/api/worker_pool.h"

#include <pthread.h>

#include <deque>
#include <system_error>
#include <thread>
#include <utility>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kIdle{5};

}  // namespace

struct WorkerPool::State {
  State(size_t threads_bound, size_t waiting_bound)
      : max_threads(threads_bound), max_waiting(waiting_bound) {}

  const size_t max_threads;
  const size_t max_waiting;
  Mutex mu;
  CondVar changed;
  std::deque<std::function<void()>> jobs ABSL_GUARDED_BY(mu);
  size_t threads ABSL_GUARDED_BY(mu) = 0;
  size_t idle ABSL_GUARDED_BY(mu) = 0;
  bool stopping ABSL_GUARDED_BY(mu) = false;

  void Work() {
    pthread_setname_np(pthread_self(), "worker");
    mu.Lock();
    while (WaitForJobLocked()) {
      std::function<void()> job = std::move(jobs.front());
      jobs.pop_front();
      mu.Unlock();
      job();
      job = nullptr;
      mu.Lock();
    }
    --threads;
    changed.SignalAll();
    mu.Unlock();
  }

  // False: the thread is to end.
  bool WaitForJobLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const Deadline until = After(kIdle);
    ++idle;
    bool in_time = true;
    while (jobs.empty() && !stopping && in_time) {
      in_time = changed.WaitUntil(mu, until);
    }
    --idle;
    return !jobs.empty();
  }
};

WorkerPool::WorkerPool(size_t max_threads, size_t max_waiting)
    : state_(std::make_shared<State>(max_threads, max_waiting)) {}

WorkerPool::~WorkerPool() {
  MutexLock lock(state_->mu);
  state_->stopping = true;
  state_->changed.SignalAll();
  while (state_->threads > 0) {
    state_->changed.Wait(state_->mu);
  }
}

bool WorkerPool::Submit(std::function<void()> job) {
  MutexLock lock(state_->mu);
  if (state_->stopping || state_->jobs.size() >= state_->max_waiting) {
    return false;
  }
  if (state_->idle <= state_->jobs.size() && state_->threads < state_->max_threads) {
    try {
      std::thread([state = state_] { state->Work(); }).detach();
      ++state_->threads;
    } catch (const std::system_error&) {
      // No thread can be made now. Another of ours will come to the job; without one it is refused.
      if (state_->threads == 0) {
        return false;
      }
    }
  }
  state_->jobs.push_back(std::move(job));
  state_->changed.SignalAll();
  return true;
}

}  // namespace creel
