#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "supervisor/base/mutex.h"
#include "supervisor/engine/engine.h"

namespace creel {

// Follows the engine's events on a thread of its own, and finds the engine again when it was away.
class EventWatcher {
 public:
  // Called on the watcher's thread, one at a time; while one runs no other event is read.
  struct Callbacks {
    std::function<void(const EngineEvent&)> on_event;
    // The stream stands, for the first time or again. Whatever happened before may have been
    // missed, so this is when to look at how things are; what happens from now on is told. An event
    // of the second before may be told once more.
    std::function<void()> on_connected;
    // The stream broke or could not be had: once, until it stands again. May be empty.
    std::function<void(const absl::Status&)> on_lost;
  };
  struct Options {
    // Between attempts, doubled from the first to the last.
    std::chrono::milliseconds first_pause{100};
    std::chrono::milliseconds last_pause{5'000};
  };

  // `engine` must outlive the watcher. `label` as in Engine::ListContainers.
  EventWatcher(Engine& engine, std::string label, Callbacks callbacks, Options options);
  EventWatcher(Engine& engine, std::string label, Callbacks callbacks)
      : EventWatcher(engine, std::move(label), std::move(callbacks), Options()) {}
  EventWatcher(const EventWatcher&) = delete;
  EventWatcher& operator=(const EventWatcher&) = delete;
  // Ends within a fraction of a second, or when the callback that runs returns. Not to be called
  // from a callback.
  ~EventWatcher();

 private:
  void Run();
  bool Stopped();
  // False once the watcher is to stop.
  bool Pause(std::chrono::milliseconds time);

  Engine& engine_;
  const std::string label_;
  const Callbacks callbacks_;
  const Options options_;
  Mutex mu_;
  CondVar stop_changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last, as it uses all of the above
};

}  // namespace creel
