#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/engine/engine.h"
#include "supervisor/sandbox/host_abilities.h"

namespace creel {

// One container's standing still while nobody needs it. The engine pauses it, so that the engine
// knows and shows it; it is let go through its control group, which takes a tenth of the engine's
// time, and the engine is told afterwards. Where we cannot write that group, the engine lets it go.
// The owner sees to it that one thing at a time is done; paused() and unsettled() may be asked by
// anybody.
class IdlePause {
 public:
  // `mark` is a file that is there while the container is paused, or may be: whoever starts after a
  // crash then knows that it was nobody's evidence. All must outlive it.
  IdlePause(Engine& engine, const HostAbilities& abilities, const std::string& mark)
      : engine_(engine), abilities_(abilities), mark_(mark) {}

  // It stands still, or is about to: whoever wants it has to see to Resume first.
  [[nodiscard]] bool paused() const { return paused_.load(); }
  // It goes on, and the engine still takes it for paused.
  [[nodiscard]] bool unsettled() const { return unsettled_.load(); }

  // From here on paused(). Before Pause, so that those who come in between are seen or wait.
  void Announce() { paused_.store(true); }
  void Withdraw() { paused_.store(false); }
  // On failure it goes on, and is no longer announced. kUnavailable, kInternal: the engine could
  // not, as happens now and then to a busy one.
  absl::Status Pause(const std::string& container, Deadline deadline);
  // `pid` is the container's first process, 0 if it is not to be seen.
  absl::Status Resume(const std::string& container, int pid, Deadline deadline);
  // Tells the engine that it goes on; for that it stands still once more, some ten milliseconds, as
  // an engine does not let go what does not.
  absl::Status Settle(const std::string& container, int pid, Deadline deadline);

  // It is to be frozen. True: it stands still, and the engine says so; it is the freezer's from now
  // on. False: it runs, the engine says so too, and it is to be frozen like any other.
  bool TurnIntoFreeze(const std::string& container, int pid, Deadline deadline);
  // Once it is marked as frozen.
  void RemoveMark() const;

  // After a restart: lets go what was only paused. `state` is what the engine says. OK if there was
  // nothing to do; `state` is then as it was, else kRunning.
  static absl::Status Recover(Engine& engine, const HostAbilities& abilities,
                              const std::string& container, int pid, const std::string& mark,
                              ContainerState& state, Deadline deadline);
  [[nodiscard]] static bool Marked(const std::string& mark);

 private:
  Engine& engine_;
  const HostAbilities& abilities_;
  const std::string mark_;
  std::atomic<bool> paused_{false};
  std::atomic<bool> unsettled_{false};
};

// Whether a process of `uid` runs in the container. `pid` as above; the engine is asked where it is
// 0.
absl::StatusOr<bool> RunsProcessOf(Engine& engine, const HostAbilities& abilities,
                                   const std::string& container, int pid, uint32_t uid,
                                   Deadline deadline);

}  // namespace creel
