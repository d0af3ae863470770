#include "agent-shim/exec/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

namespace creel::shim {
namespace {

constexpr uint64_t kTimerId = 0;
constexpr uint64_t kStopId = 1;

absl::Status Add(int epoll, int fd, uint32_t events, uint64_t id) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    return ErrnoStatus(errno, "add a descriptor to epoll");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Start() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) {
    return ErrnoStatus(errno, "make an epoll");
  }
  UniqueFd timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.valid()) {
    return ErrnoStatus(errno, "make a timer");
  }
  UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop.valid()) {
    return ErrnoStatus(errno, "make an eventfd");
  }
  RETURN_IF_ERROR(Add(epoll.get(), timer.get(), EPOLLIN, kTimerId));
  RETURN_IF_ERROR(Add(epoll.get(), stop.get(), EPOLLIN, kStopId));
  std::unique_ptr<EventLoop> loop(
      new EventLoop(std::move(epoll), std::move(timer), std::move(stop)));
  EventLoop* raw = loop.get();
  loop->thread_ = std::thread([raw] { raw->Run(); });
  return loop;
}

EventLoop::EventLoop(UniqueFd epoll, UniqueFd timer, UniqueFd stop)
    : epoll_(std::move(epoll)), timer_(std::move(timer)), stop_(std::move(stop)) {}

EventLoop::~EventLoop() { Stop(); }

void EventLoop::Stop() {
  if (!thread_.joinable()) {
    return;
  }
  const uint64_t one = 1;
  while (write(stop_.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
}

absl::StatusOr<uint64_t> EventLoop::Watch(int fd, uint32_t events, OnReady on_ready) {
  uint64_t id = 0;
  {
    MutexLock lock(mu_);
    id = next_id_++;
    watchers_[id] = {
        .fd = fd, .events = events, .on_ready = std::make_shared<OnReady>(std::move(on_ready))};
  }
  if (absl::Status added = Add(epoll_.get(), fd, events, id); !added.ok()) {
    MutexLock lock(mu_);
    watchers_.erase(id);
    return added;
  }
  return id;
}

void EventLoop::Rearm(uint64_t id) {
  MutexLock lock(mu_);
  auto found = watchers_.find(id);
  if (found == watchers_.end()) {
    return;
  }
  epoll_event event{};
  event.events = found->second.events;
  event.data.u64 = id;
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, found->second.fd, &event);
}

void EventLoop::Unwatch(uint64_t id) {
  std::shared_ptr<OnReady> dropped;  // destroyed without the lock: it may own what calls us
  MutexLock lock(mu_);
  auto found = watchers_.find(id);
  if (found == watchers_.end()) {
    return;
  }
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd, nullptr);
  dropped = std::move(found->second.on_ready);
  watchers_.erase(found);
}

uint64_t EventLoop::At(Deadline when, OnTime on_time) {
  MutexLock lock(mu_);
  const uint64_t id = next_id_++;
  timers_[{when, id}] = std::move(on_time);
  timer_times_[id] = when;
  ArmTimerLocked();
  return id;
}

void EventLoop::CancelTimer(uint64_t id) {
  OnTime dropped;
  MutexLock lock(mu_);
  auto found = timer_times_.find(id);
  if (found == timer_times_.end()) {
    return;
  }
  auto timer = timers_.find({found->second, id});
  dropped = std::move(timer->second);
  timers_.erase(timer);
  timer_times_.erase(found);
  // The timer may now fire too early; that does no harm.
}

void EventLoop::ArmTimerLocked() {
  if (timers_.empty()) {
    armed_ = Deadline::max();
    return;
  }
  const Deadline first = timers_.begin()->first.first;
  if (first >= armed_) {
    return;
  }
  armed_ = first;
  const auto now = std::chrono::steady_clock::now();
  // Zero would disarm it.
  const int64_t nanos = std::max<int64_t>(
      1, std::chrono::duration_cast<std::chrono::nanoseconds>(first - now).count());
  itimerspec spec{};
  spec.it_value.tv_sec = nanos / 1'000'000'000;
  spec.it_value.tv_nsec = nanos % 1'000'000'000;
  timerfd_settime(timer_.get(), 0, &spec, nullptr);
}

void EventLoop::RunTimers() {
  uint64_t expirations = 0;
  while (read(timer_.get(), &expirations, sizeof expirations) < 0 && errno == EINTR) {
  }
  std::vector<OnTime> due;
  {
    MutexLock lock(mu_);
    armed_ = Deadline::max();
    const auto now = std::chrono::steady_clock::now();
    while (!timers_.empty() && timers_.begin()->first.first <= now) {
      timer_times_.erase(timers_.begin()->first.second);
      due.push_back(std::move(timers_.begin()->second));
      timers_.erase(timers_.begin());
    }
    ArmTimerLocked();
  }
  for (const OnTime& on_time : due) {
    on_time();
  }
}

void EventLoop::Run() {
  std::array<epoll_event, 32> events;
  for (;;) {
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      const uint64_t id = events[i].data.u64;
      if (id == kStopId) {
        return;
      }
      if (id == kTimerId) {
        RunTimers();
        continue;
      }
      std::shared_ptr<OnReady> on_ready;
      {
        MutexLock lock(mu_);
        if (auto found = watchers_.find(id); found != watchers_.end()) {
          on_ready = found->second.on_ready;
        }
      }
      if (on_ready != nullptr) {
        (*on_ready)(events[i].events);
      }
    }
  }
}

}  // namespace creel::shim
