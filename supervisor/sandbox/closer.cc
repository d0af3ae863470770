#include "supervisor/sandbox/closer.h"

#include <pthread.h>
#include <sys/socket.h>

#include <chrono>
#include <deque>
#include <system_error>
#include <thread>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"

namespace creel {
namespace {

// When so many wait for each thread, the threads are stuck, and one more starts.
constexpr size_t kStuckBacklog = 16;
constexpr int kMaxThreads = 4;

}  // namespace

struct Closer::State {
  mutable Mutex mu;
  CondVar changed;
  std::deque<UniqueFd> queue ABSL_GUARDED_BY(mu);
  int threads ABSL_GUARDED_BY(mu) = 0;
  int busy ABSL_GUARDED_BY(mu) = 0;
  bool stop ABSL_GUARDED_BY(mu) = false;

  void Work() {
    pthread_setname_np(pthread_self(), "closer");
    for (;;) {
      UniqueFd fd;
      {
        MutexLock lock(mu);
        while (queue.empty() && !stop) {
          changed.Wait(mu);
        }
        if (queue.empty()) {
          --threads;
          changed.SignalAll();
          return;
        }
        fd = std::move(queue.front());
        queue.pop_front();
        ++busy;
      }
      const linger off = {};
      setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &off, sizeof(off));
      fd.reset();
      MutexLock lock(mu);
      --busy;
    }
  }
};

Closer::Closer() : state_(std::make_shared<State>()) {}

Closer::~Closer() {
  const Deadline deadline = After(std::chrono::seconds(1));
  MutexLock lock(state_->mu);
  state_->stop = true;
  state_->changed.SignalAll();
  while (state_->threads > 0 && state_->changed.WaitUntil(state_->mu, deadline)) {
  }
}

void Closer::Close(UniqueFd fd) {
  if (!fd.valid()) {
    return;
  }
  MutexLock lock(state_->mu);
  state_->queue.push_back(std::move(fd));
  const size_t enough = kStuckBacklog * static_cast<size_t>(state_->threads);
  if (state_->queue.size() > enough && state_->threads < kMaxThreads) {
    try {
      std::thread([state = state_] { state->Work(); }).detach();
      ++state_->threads;
    } catch (const std::system_error&) {
      // No thread to be had: the descriptor waits for the next call.
    }
  }
  state_->changed.SignalOne();
}

size_t Closer::backlog() const {
  MutexLock lock(state_->mu);
  return state_->queue.size() + static_cast<size_t>(state_->busy);
}

}  // namespace creel
