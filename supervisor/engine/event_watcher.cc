#include "supervisor/engine/event_watcher.h"

#include <algorithm>
#include <utility>

namespace creel {

EventWatcher::EventWatcher(Engine& engine, std::string label, Callbacks callbacks, Options options)
    : engine_(engine),
      label_(std::move(label)),
      callbacks_(std::move(callbacks)),
      options_(options),
      thread_([this] { Run(); }) {}

EventWatcher::~EventWatcher() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  stop_changed_.SignalAll();
  thread_.join();
}

bool EventWatcher::Stopped() {
  MutexLock lock(mu_);
  return stop_;
}

bool EventWatcher::Pause(std::chrono::milliseconds time) {
  const Deadline until = After(time);
  MutexLock lock(mu_);
  while (!stop_ && stop_changed_.WaitUntil(mu_, until)) {
  }
  return !stop_;
}

void EventWatcher::Run() {
  std::chrono::milliseconds pause = options_.first_pause;
  bool lost = false;
  while (!Stopped()) {
    const absl::Status status = engine_.StreamEvents(
        label_,
        [this](const EngineEvent& event) {
          callbacks_.on_event(event);
          return !Stopped();
        },
        [this, &pause, &lost] {
          pause = options_.first_pause;
          lost = false;
          callbacks_.on_connected();
        },
        [this] { return Stopped(); });
    if (Stopped()) {
      return;
    }
    if (!lost && callbacks_.on_lost) {
      callbacks_.on_lost(status);
    }
    lost = true;
    if (!Pause(pause)) {
      return;
    }
    pause = std::min(pause * 2, options_.last_pause);
  }
}

}  // namespace creel
