#include "supervisor/sandbox/idle_pause.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/sandbox/cgroups.h"
#include "supervisor/sandbox/dir_tree.h"

namespace creel {
namespace {

// PID 1 and the process that it forks commands from.
constexpr size_t kShimsOwn = 2;
constexpr std::chrono::milliseconds kStandStill{500};

// As its status tells: who owns its folder in /proc the process has a say in.
bool RunsAs(int pid, uint32_t uid) {
  auto status = ReadWholeFile(fmt::format("/proc/{}/status", pid), 65536);
  constexpr std::string_view kField = "\nUid:\t";
  const size_t at = status.ok() ? status->find(kField) : std::string::npos;
  return at != std::string::npos &&
         std::strtoul(status->c_str() + at + kField.size(), nullptr, 10) == uid;
}

bool EngineSays(Engine& engine, const std::string& container, ContainerState state,
                Deadline deadline) {
  const auto info = engine.InspectContainer(container, deadline);
  return info.ok() && info->state == state;
}

// Lets go what the engine takes for paused, whether it stands still or not. An engine's runtime
// refuses to let go what does not (runc: "container not paused"), and the engine then takes it for
// paused for ever: so it stands still for the moment that this takes.
absl::Status LetGoByEngine(Engine& engine, const HostAbilities& abilities,
                           const std::string& container, int pid, Deadline deadline) {
  const auto groups = ContainerCgroups::OfContainer(abilities, container, pid);
  if (groups.ok()) {
    RETURN_IF_ERROR(groups->Freeze(std::min(deadline, After(kStandStill))));
  }
  absl::Status told = engine.UnpauseContainer(container, deadline);
  if (!told.ok() && EngineSays(engine, container, ContainerState::kRunning, deadline)) {
    told = absl::OkStatus();
  }
  if (groups.ok()) {
    // If it was let go, this changes nothing.
    const absl::Status thawed = groups->Thaw();
    if (told.ok() && !thawed.ok() && thawed.code() != absl::StatusCode::kNotFound) {
      return thawed;
    }
  }
  return told;
}

}  // namespace

absl::Status IdlePause::Pause(const std::string& container, Deadline deadline) {
  absl::Status paused = WriteWholeFile(mark_, "idle\n", 0600);
  if (paused.ok()) {
    paused = engine_.PauseContainer(container, deadline);
    if (!paused.ok() && EngineSays(engine_, container, ContainerState::kPaused, deadline)) {
      paused = absl::OkStatus();
    }
  }
  if (!paused.ok()) {
    RemoveMark();
    Withdraw();
  }
  return paused;
}

absl::Status IdlePause::Resume(const std::string& container, int pid, Deadline deadline) {
  if (!paused()) {
    return absl::OkStatus();
  }
  if (const auto groups = ContainerCgroups::OfContainer(abilities_, container, pid);
      groups.ok() && groups->Thaw().ok()) {
    unsettled_.store(true);
    paused_.store(false);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(LetGoByEngine(engine_, abilities_, container, pid, deadline));
  paused_.store(false);
  RemoveMark();
  return absl::OkStatus();
}

absl::Status IdlePause::Settle(const std::string& container, int pid, Deadline deadline) {
  if (!unsettled()) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(LetGoByEngine(engine_, abilities_, container, pid, deadline));
  unsettled_.store(false);
  RemoveMark();
  return absl::OkStatus();
}

bool IdlePause::TurnIntoFreeze(const std::string& container, int pid, Deadline deadline) {
  if (paused_.exchange(false)) {
    return true;
  }
  if (!unsettled()) {
    return false;
  }
  if (const auto groups = ContainerCgroups::OfContainer(abilities_, container, pid);
      groups.ok() && groups->Freeze(deadline).ok()) {
    unsettled_.store(false);
    return true;
  }
  // What the engine takes for paused it does not pause.
  (void)Settle(container, pid, deadline);
  return false;
}

void IdlePause::RemoveMark() const { (void)::unlink(mark_.c_str()); }

bool IdlePause::Marked(const std::string& mark) { return ::access(mark.c_str(), F_OK) == 0; }

absl::Status IdlePause::Recover(Engine& engine, const HostAbilities& abilities,
                                const std::string& container, int pid, const std::string& mark,
                                ContainerState& state, Deadline deadline) {
  if (!Marked(mark)) {
    return absl::OkStatus();
  }
  if (state == ContainerState::kPaused) {
    RETURN_IF_ERROR(LetGoByEngine(engine, abilities, container, pid, deadline));
    state = ContainerState::kRunning;
  }
  (void)::unlink(mark.c_str());
  return absl::OkStatus();
}

absl::StatusOr<bool> RunsProcessOf(Engine& engine, const HostAbilities& abilities,
                                   const std::string& container, int pid, uint32_t uid,
                                   Deadline deadline) {
  if (const auto groups = ContainerCgroups::OfContainer(abilities, container, pid); groups.ok()) {
    ASSIGN_OR_RETURN(const std::vector<int> processes, groups->Processes());
    if (uid == 0) {
      return processes.size() > kShimsOwn;
    }
    return std::any_of(processes.begin(), processes.end(),
                       [uid](int each) { return RunsAs(each, uid); });
  }
  ASSIGN_OR_RETURN(const std::vector<ProcessRow> rows, engine.Top(container, deadline));
  if (uid == 0) {
    return rows.size() > kShimsOwn;
  }
  return std::any_of(rows.begin(), rows.end(),
                     [uid](const ProcessRow& row) { return row.uid == uid; });
}

}  // namespace creel
