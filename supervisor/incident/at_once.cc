#include "supervisor/incident/at_once.h"

#include <memory>

#include "supervisor/base/mutex.h"

namespace creel {
namespace {

// Counts jobs down.
class Pending {
 public:
  explicit Pending(size_t count) : left_(count) {}

  void Done() {
    MutexLock hold(mu_);
    --left_;
    changed_.SignalAll();
  }
  void Wait() {
    MutexLock hold(mu_);
    while (left_ > 0) {
      changed_.Wait(mu_);
    }
  }

 private:
  Mutex mu_;
  CondVar changed_;
  size_t left_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

void AtOnce(JobThreads& threads, size_t count, const std::function<void(size_t)>& job,
            const std::function<void(size_t)>& refused) {
  // Shared, as the last job still touches it when Wait has returned.
  const auto pending = std::make_shared<Pending>(count);
  for (size_t i = 0; i < count; ++i) {
    const bool taken = threads.Post([&job, i, pending] {
      job(i);
      pending->Done();
    });
    if (!taken) {
      refused(i);
      pending->Done();
    }
  }
  pending->Wait();
}

}  // namespace creel
