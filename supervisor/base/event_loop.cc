#include "supervisor/base/event_loop.h"

#include <pthread.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <future>

namespace creel {
namespace {

// Of epoll_event.data.
constexpr uint64_t kWakeId = 0;

}  // namespace

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Start(const std::string& thread_name) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) {
    return ErrnoStatus(errno, "epoll_create1");
  }
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) {
    return ErrnoStatus(errno, "eventfd");
  }
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = kWakeId}};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) {
    return ErrnoStatus(errno, "epoll_ctl");
  }
  std::unique_ptr<EventLoop> loop(new EventLoop(std::move(epoll), std::move(wake)));
  loop->thread_ = std::thread([loop = loop.get()] { loop->Work(); });
  pthread_setname_np(loop->thread_.native_handle(), thread_name.substr(0, 15).c_str());
  return loop;
}

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wake)
    : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

EventLoop::~EventLoop() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void EventLoop::Post(Task task) {
  bool first = false;
  {
    MutexLock lock(mu_);
    first = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (first) {
    eventfd_write(wake_.get(), 1);
  }
}

void EventLoop::Run(const Task& task) {
  if (std::this_thread::get_id() == thread_.get_id()) {
    task();
    return;
  }
  std::promise<void> ran;
  Post([&] {
    task();
    ran.set_value();
  });
  ran.get_future().wait();
}

absl::StatusOr<EventLoop::Id> EventLoop::Watch(int fd, uint32_t events, OnEvent on_event) {
  const Id id = ++last_id_;
  epoll_event event = {.events = events, .data = {.u64 = id}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return ErrnoStatus(errno, "epoll_ctl");
  }
  watched_[id] = std::make_shared<Watched>(Watched{fd, std::move(on_event)});
  return id;
}

void EventLoop::Change(Id watch, uint32_t events) {
  const auto it = watched_.find(watch);
  if (it != watched_.end()) {
    epoll_event event = {.events = events, .data = {.u64 = watch}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, it->second->fd, &event);
  }
}

void EventLoop::Unwatch(Id watch) {
  const auto it = watched_.find(watch);
  if (it != watched_.end()) {
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, it->second->fd, nullptr);
    watched_.erase(it);
  }
}

EventLoop::Id EventLoop::After(std::chrono::nanoseconds delay, Task task) {
  const Id id = ++last_id_;
  const Time time = std::chrono::steady_clock::now() + delay;
  timers_.emplace(std::pair(time, id), std::move(task));
  timer_times_.emplace(id, time);
  return id;
}

void EventLoop::Cancel(Id timer) {
  const auto it = timer_times_.find(timer);
  if (it != timer_times_.end()) {
    timers_.erase({it->second, timer});
    timer_times_.erase(it);
  }
}

int EventLoop::NextTimeout() const {
  if (timers_.empty()) {
    return -1;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first.first -
                                                                 std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, INT_MAX));
}

void EventLoop::RunTimers() {
  if (timers_.empty()) {
    return;
  }
  const Time now = std::chrono::steady_clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto node = timers_.extract(timers_.begin());
    timer_times_.erase(node.key().second);
    node.mapped()();
  }
}

bool EventLoop::RunTasks() {
  std::vector<Task> tasks;
  {
    MutexLock lock(mu_);
    tasks.swap(tasks_);
    if (stop_) {
      return false;
    }
  }
  for (const Task& task : tasks) {
    task();
  }
  return true;
}

void EventLoop::Work() {
  std::array<epoll_event, 64> events;
  for (;;) {
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), NextTimeout());
    bool woken = false;
    for (int i = 0; i < count; ++i) {
      const Id id = events[i].data.u64;
      if (id == kWakeId) {
        eventfd_t ignored = 0;
        eventfd_read(wake_.get(), &ignored);
        woken = true;
        continue;
      }
      // An earlier handler of this round may have unwatched it.
      const auto it = watched_.find(id);
      if (it != watched_.end()) {
        const std::shared_ptr<Watched> watched = it->second;
        watched->on_event(events[i].events);
      }
    }
    RunTimers();
    if (woken && !RunTasks()) {
      return;
    }
  }
}

}  // namespace creel
