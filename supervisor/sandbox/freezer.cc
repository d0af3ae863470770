#include "supervisor/sandbox/freezer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "supervisor/base/mutex.h"
#include "supervisor/sandbox/cgroups.h"
#include "supervisor/sandbox/dir_tree.h"

namespace creel {
namespace {

constexpr std::chrono::milliseconds kPatience{1000};
// Where the engine is the only way short of killing.
constexpr std::chrono::milliseconds kEnginePatience{1500};
// Tries that follow each other at once: a busy container's pause mostly works the second time.
constexpr int kAtOnce = 3;
// Its runtime waits some milliseconds for the processes to stop, which each does when it is next on
// a processor. Where fifty containers are busy that takes longer, unless this one goes first:
// tried, 46 of 50 pauses fail as things are, and 3 of 50 with these shares.
constexpr uint64_t kSharesFirst = 262'144;
constexpr uint64_t kSharesUnasked = 1024;
// So many go first at a time.
constexpr int kTurns = 8;
constexpr std::chrono::milliseconds kBetweenTries{20};
constexpr std::chrono::milliseconds kGroupPatience{500};
constexpr size_t kMaxHoldBytes = 16384;

// Lets a few in at a time.
class Turns {
 public:
  // False: none was free by `deadline`.
  bool Take(Deadline deadline) {
    MutexLock hold(mu_);
    while (free_ == 0) {
      if (!changed_.WaitUntil(mu_, deadline)) {
        return false;
      }
    }
    --free_;
    return true;
  }
  void GiveBack() {
    MutexLock hold(mu_);
    ++free_;
    changed_.SignalOne();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  int free_ ABSL_GUARDED_BY(mu_) = kTurns;
};

Turns& EngineTurns() {
  static Turns& turns = *new Turns;
  return turns;
}

// The container's groups, by the process that the engine says is its first.
absl::StatusOr<ContainerCgroups> GroupsOf(Engine& engine, const HostAbilities& abilities,
                                          const std::string& container, Deadline deadline) {
  if (!abilities.cgroup_freezer) {
    return ContainerCgroups::OfContainer(abilities, container, 0);  // says why; asks nobody
  }
  ASSIGN_OR_RETURN(const ContainerInfo info, engine.InspectContainer(container, deadline));
  if (info.pid <= 0) {
    return absl::NotFoundError(fmt::format("container '{}' does not run", container));
  }
  return ContainerCgroups::OfContainer(abilities, info.id, info.pid);
}

absl::StatusOr<std::string> FreezeByEngine(Engine& engine, const HostAbilities& abilities,
                                           const std::string& container, Deadline deadline) {
  const Deadline patience =
      std::min(deadline, After(abilities.cgroup_freezer ? kPatience : kEnginePatience));
  absl::Status paused;
  for (int tries = 1;; ++tries) {
    paused = engine.PauseContainer(container, patience);
    if (paused.ok()) {
      return kFrozenByEngine;
    }
    if (paused.code() == absl::StatusCode::kNotFound) {
      return paused;
    }
    if (absl::IsInternal(paused) && tries < kAtOnce) {
      continue;
    }
    if (auto info = engine.InspectContainer(container, patience); info.ok()) {
      if (info->state == ContainerState::kPaused) {
        return kFrozenByEngine;
      }
      if (info->state != ContainerState::kRunning) {
        return absl::NotFoundError(fmt::format("container '{}' does not run", container));
      }
    }
    if (std::chrono::steady_clock::now() + kBetweenTries >= patience) {
      break;
    }
    std::this_thread::sleep_for(kBetweenTries);
  }
  const Deadline group_patience = After(kGroupPatience);
  auto groups = GroupsOf(engine, abilities, container, std::max(deadline, group_patience));
  absl::Status frozen = groups.status();
  if (groups.ok()) {
    frozen = groups->Freeze(group_patience);
    if (frozen.ok()) {
      return kFrozenByCgroup;
    }
  }
  const absl::Status killed =
      engine.KillContainer(container, "SIGKILL", std::max(deadline, After(kPatience)));
  if (killed.ok() || killed.code() == absl::StatusCode::kNotFound ||
      killed.code() == absl::StatusCode::kFailedPrecondition) {
    return kKilled;
  }
  return absl::Status(killed.code(),
                      fmt::format("the engine cannot pause it ({}), its control group cannot be "
                                  "frozen ({}), and it cannot be killed: {}",
                                  std::string(paused.message()), std::string(frozen.message()),
                                  std::string(killed.message())));
}

}  // namespace

absl::StatusOr<std::string> FreezeContainer(Engine& engine, const HostAbilities& abilities,
                                            const std::string& container, Deadline deadline) {
  if (abilities.cgroup_freezer) {
    return FreezeByEngine(engine, abilities, container, deadline);
  }
  const bool turn = EngineTurns().Take(deadline);
  // What cannot be made to go first is paused as it is.
  static_cast<void>(
      engine.SetCpuShares(container, kSharesFirst, std::min(deadline, After(kPatience))));
  absl::StatusOr<std::string> method = FreezeByEngine(engine, abilities, container, deadline);
  if (turn) {
    EngineTurns().GiveBack();
  }
  return method;
}

absl::StatusOr<std::string> FreezeContainerQuickly(Engine& engine, const HostAbilities& abilities,
                                                   const std::string& container, int pid,
                                                   Deadline deadline) {
  absl::StatusOr<ContainerCgroups> groups =
      ContainerCgroups::OfContainer(abilities, container, pid);
  if (!groups.ok() && abilities.cgroup_freezer) {
    groups = GroupsOf(engine, abilities, container, std::min(deadline, After(kPatience)));
  }
  if (groups.ok() && groups->Freeze(std::min(deadline, After(kGroupPatience))).ok()) {
    return kFrozenByCgroup;
  }
  return FreezeContainer(engine, abilities, container, deadline);
}

absl::Status ThawContainer(Engine& engine, const HostAbilities& abilities,
                           const std::string& container, const std::string& method,
                           Deadline deadline) {
  if (method == kFrozenByCgroup) {
    ASSIGN_OR_RETURN(const ContainerCgroups groups,
                     GroupsOf(engine, abilities, container, deadline));
    return groups.Thaw();
  }
  absl::Status resumed = engine.UnpauseContainer(container, deadline);
  if (!abilities.cgroup_freezer) {
    static_cast<void>(
        engine.SetCpuShares(container, kSharesUnasked, std::min(deadline, After(kPatience))));
  }
  if (!resumed.ok()) {
    auto info = engine.InspectContainer(container, deadline);
    if (info.ok() && info->state == ContainerState::kRunning) {
      return absl::OkStatus();
    }
  }
  return resumed;
}

absl::Status KillFrozenContainer(Engine& engine, const HostAbilities& abilities,
                                 const std::string& container, Deadline deadline) {
  auto groups = GroupsOf(engine, abilities, container, deadline);
  const absl::Status killed = engine.KillContainer(container, "SIGKILL", deadline);
  // The signal waits at the door of the frozen: let go, they run nothing of their own any more.
  if (groups.ok()) {
    (void)groups->Thaw();
  }
  if (killed.code() == absl::StatusCode::kNotFound ||
      killed.code() == absl::StatusCode::kFailedPrecondition) {
    return absl::OkStatus();
  }
  return killed;
}

absl::Status WriteHold(const std::string& path, const Hold& hold) {
  return WriteWholeFile(path, fmt::format("{}\n{}", hold.method, hold.reason.substr(0, 8192)),
                        0600);
}

absl::StatusOr<Hold> ReadHold(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path, kMaxHoldBytes));
  const size_t end = text.find('\n');
  if (end == std::string::npos) {
    return Hold{.method = kFrozenByEngine, .reason = "frozen; its mark on the disk is damaged"};
  }
  return Hold{.method = text.substr(0, end), .reason = text.substr(end + 1)};
}

absl::Status RemoveHold(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, fmt::format("remove '{}'", path));
  }
  return absl::OkStatus();
}

}  // namespace creel
