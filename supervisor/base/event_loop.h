#pragma once

#include <sys/epoll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// One thread that waits for descriptors, timers and tasks, and runs what was left for them. None of
// that may block or throw.
class EventLoop {
 public:
  using Task = std::function<void()>;
  using OnEvent = std::function<void(uint32_t events)>;
  using Id = uint64_t;  // 0 names nothing

  static absl::StatusOr<std::unique_ptr<EventLoop>> Start(const std::string& thread_name);
  // Ends the thread after the task it is at; tasks that still wait are dropped.
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // From any thread: runs `task` later, in order.
  void Post(Task task);
  // From any thread: runs `task` and returns when it has run. At once, if this is the loop's
  // thread.
  void Run(const Task& task);

  // The rest is for the loop's own thread.

  // Calls `on_event` for `events` of epoll_ctl(2). `fd` must stay open until Unwatch.
  absl::StatusOr<Id> Watch(int fd, uint32_t events, OnEvent on_event);
  void Change(Id watch, uint32_t events);
  // No event of it is delivered any more.
  void Unwatch(Id watch);

  Id After(std::chrono::nanoseconds delay, Task task);
  void Cancel(Id timer);

 private:
  struct Watched {
    int fd;
    OnEvent on_event;
  };
  using Time = std::chrono::steady_clock::time_point;

  explicit EventLoop(UniqueFd epoll, UniqueFd wake);
  void Work();
  // Milliseconds until the next timer; -1 without one.
  [[nodiscard]] int NextTimeout() const;
  void RunTimers();
  // Whether the loop goes on.
  bool RunTasks();

  const UniqueFd epoll_;
  const UniqueFd wake_;
  Id last_id_ = 0;
  // Shared, so that a handler that unwatches itself lives until it returns.
  std::unordered_map<Id, std::shared_ptr<Watched>> watched_;
  std::map<std::pair<Time, Id>, Task> timers_;
  std::unordered_map<Id, Time> timer_times_;

  Mutex mu_;
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace creel
