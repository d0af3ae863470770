#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/api/operator_service.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/sandbox/host_abilities.h"

namespace creel {

// All rooms of a running supervisor, made in order and taken down in the opposite one.
class Daemon {
 public:
  // Takes the state folder, finds the engine (tried again for `engine_wait` while nothing answers),
  // checks the walls, adopts what lives and opens the doors. On failure nothing is left running;
  // containers stay as they are.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(Config config,
                                                       std::chrono::seconds engine_wait);
  // Stops.
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Reads the configuration file again. What may change while running counts at once; the rest is
  // named in the log. On an error nothing changes.
  absl::StatusOr<ReloadReport> Reload();

  // Closes the doors, ends calls that are under way after a moment, drops the links. Containers
  // stay, and are adopted by the next start.
  void Stop();

 private:
  struct Rooms;
  Daemon(Config config, std::unique_ptr<Rooms> rooms);
  // Open sandboxes that would get other limits now, for `creel doctor`; nothing if there are none.
  std::optional<Finding> CheckLimits();

  // What runs; another one that was read later may wait for a restart.
  const std::unique_ptr<Config> config_;
  std::unique_ptr<Rooms> rooms_;
  // Readings of the file do not overtake each other.
  Mutex reload_mu_;
  // The file as it was read last, if it was read again.
  std::optional<Config> last_read_ ABSL_GUARDED_BY(reload_mu_);
};

}  // namespace creel
