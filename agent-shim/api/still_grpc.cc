#include "agent-shim/api/still_grpc.h"

#include <grpc/event_engine/event_engine.h>
#include <grpc/grpc.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <unordered_map>
#include <utility>

#include "supervisor/base/mutex.h"

// Of src/core/lib/iomgr/timer_manager.h, which is not among the public headers. Where a later gRPC
// has no such function the link fails.
void grpc_timer_manager_set_threading(bool enabled);  // NOLINT(readability-identifier-naming)

// By --wrap of the linker, in the place of grpc_completion_queue_next.
extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
grpc_event __real_grpc_completion_queue_next(grpc_completion_queue* queue, gpr_timespec deadline,
                                             void* reserved);

// Only gRPC's callback threads call it here, and these are woken by whatever there is to do.
grpc_event __wrap_grpc_completion_queue_next(grpc_completion_queue* queue,
                                             gpr_timespec /*deadline*/, void* reserved) {
  return __real_grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), reserved);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}

namespace creel::shim {
namespace {

using grpc_event_engine::experimental::EndpointConfig;
using grpc_event_engine::experimental::EventEngine;
using grpc_event_engine::experimental::MemoryAllocator;
using grpc_event_engine::experimental::MemoryAllocatorFactory;
using grpc_event_engine::experimental::SetEventEngineFactory;
using Work = absl::AnyInvocable<void()>;

class LoopEngine : public EventEngine {
 public:
  explicit LoopEngine(EventLoop& loop) : loop_(loop) {}

  void Run(Closure* closure) override {
    Run([closure] { closure->Run(); });
  }
  void Run(Work work) override { RunAfter(Duration::zero(), std::move(work)); }
  TaskHandle RunAfter(Duration when, Closure* closure) override {
    return RunAfter(when, [closure] { closure->Run(); });
  }
  TaskHandle RunAfter(Duration when, Work work) override {
    const auto due = std::chrono::steady_clock::now() + when;
    MutexLock lock(mu_);
    const intptr_t key = next_++;
    tasks_[key] = {.work = std::move(work), .timer = loop_.At(due, [this, key] { RunTask(key); })};
    return {.keys = {key, 0}};
  }
  bool Cancel(TaskHandle handle) override {
    Work dropped;  // ends outside the lock
    MutexLock lock(mu_);
    const auto found = tasks_.find(handle.keys[0]);
    if (found == tasks_.end()) {
      return false;
    }
    dropped = std::move(found->second.work);
    loop_.CancelTimer(found->second.timer);
    tasks_.erase(found);
    return true;
  }

  bool IsWorkerThread() override { return false; }
  absl::StatusOr<std::unique_ptr<Listener>> CreateListener(
      Listener::AcceptCallback, absl::AnyInvocable<void(absl::Status)>, const EndpointConfig&,
      std::unique_ptr<MemoryAllocatorFactory>) override {
    abort();
  }
  ConnectionHandle Connect(OnConnectCallback, const ResolvedAddress&, const EndpointConfig&,
                           MemoryAllocator, Duration) override {
    abort();
  }
  bool CancelConnect(ConnectionHandle) override { abort(); }
  std::unique_ptr<DNSResolver> GetDNSResolver(const DNSResolver::ResolverOptions&) override {
    abort();
  }

 private:
  struct Task {
    Work work;
    uint64_t timer;
  };

  void RunTask(intptr_t key) {
    Work work;
    {
      MutexLock lock(mu_);
      const auto found = tasks_.find(key);
      if (found == tasks_.end()) {
        return;
      }
      work = std::move(found->second.work);
      tasks_.erase(found);
    }
    work();
  }

  EventLoop& loop_;
  Mutex mu_;
  intptr_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::unordered_map<intptr_t, Task> tasks_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

void RunEventEngineOn(EventLoop& loop) {
  SetEventEngineFactory([&loop] { return std::make_unique<LoopEngine>(loop); });
}

void StopTimerThread() { grpc_timer_manager_set_threading(false); }

}  // namespace creel::shim
