#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <unordered_map>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// One thread that waits for descriptors and for time, and calls whoever asked. Thread-safe. No lock
// is held while a callback runs, so callbacks may call back into the loop.
class EventLoop {
 public:
  // Epoll events that came for the descriptor.
  using OnReady = std::function<void(uint32_t events)>;
  using OnTime = std::function<void()>;

  static absl::StatusOr<std::unique_ptr<EventLoop>> Start();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Ends and joins the thread: nothing is called after this. Not to be called from it.
  void Stop();

  // Watches `fd`, which stays the caller's, for epoll `events`. The id is never used again, so that
  // an event which is under way for a descriptor that was closed reaches nobody.
  absl::StatusOr<uint64_t> Watch(int fd, uint32_t events, OnReady on_ready);
  // For an edge-triggered watch whose callback left something undone: looks again, and calls back if
  // the descriptor is ready now.
  void Rearm(uint64_t id);
  // No new call to the callback starts after this; one may be under way on the loop's thread.
  void Unwatch(uint64_t id);

  // Calls `on_time` once at `when`.
  uint64_t At(Deadline when, OnTime on_time);
  void CancelTimer(uint64_t id);

 private:
  struct Watcher {
    int fd;
    uint32_t events;
    std::shared_ptr<OnReady> on_ready;
  };

  EventLoop(UniqueFd epoll, UniqueFd timer, UniqueFd stop);
  void Run();
  void RunTimers();
  void ArmTimerLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const UniqueFd epoll_;
  const UniqueFd timer_;
  const UniqueFd stop_;
  Mutex mu_;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 2;  // 0 and 1 are the loop's own descriptors
  std::unordered_map<uint64_t, Watcher> watchers_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<Deadline, uint64_t>, OnTime> timers_ ABSL_GUARDED_BY(mu_);
  std::unordered_map<uint64_t, Deadline> timer_times_ ABSL_GUARDED_BY(mu_);
  Deadline armed_ ABSL_GUARDED_BY(mu_) = Deadline::max();
  std::thread thread_;
};

}  // namespace creel::shim
