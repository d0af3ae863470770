#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "creel/operator/v1/page.pb.h"
#include "supervisor/base/mutex.h"
#include "supervisor/engine/engine.h"
#include "supervisor/sandbox/cgroups.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// What all sandboxes use, read from their control groups: hundreds cost a few milliseconds, where
// the engine would take seconds. Where those cannot be read the engine is asked, for a few at a
// time. Blocks; thread-safe.
class SandboxMeter {
 public:
  // Both must outlive it. `workdir` is where workspaces lie in the sandboxes.
  SandboxMeter(Engine& engine, const SessionManager& sessions, std::string workdir)
      : engine_(engine), sessions_(sessions), workdir_(std::move(workdir)) {}

  // At most a second old.
  operator_::v1::ListUsageResponse Measure(Deadline deadline);

 private:
  struct Known {
    std::optional<ContainerInfo> info{};  // without the engine's JSON
    std::optional<ContainerCgroups> groups{};
    ContainerStats last{};
    operator_::v1::Usage usage{};
    std::chrono::steady_clock::time_point disk_at{};
    std::chrono::steady_clock::time_point asked_at{};  // of the engine
    bool seen = false;
  };

  // Whether `known.usage` was brought up to date.
  bool MeasureOne(const SessionView& view, Known& known, Deadline deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool FromGroups(Known& known) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool FromEngine(const SessionView& view, Known& known, Deadline deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MeasureDisk(const SessionView& view, Known& known) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Engine& engine_;
  const SessionManager& sessions_;
  const std::string workdir_;
  Mutex mu_;
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(mu_);  // by container id
  int inspect_turns_ ABSL_GUARDED_BY(mu_) = 0;               // left in this round
  int stats_turns_ ABSL_GUARDED_BY(mu_) = 0;
  int tree_turns_ ABSL_GUARDED_BY(mu_) = 0;
  std::chrono::steady_clock::time_point measured_at_ ABSL_GUARDED_BY(mu_);
  operator_::v1::ListUsageResponse newest_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
