// What a sandbox may use follows its trust level.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/policy/level_limits.h"
#include "supervisor/sandbox/container_spec.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager_impl.h"
#include "supervisor/session/stop_running.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kChangeTimeout{20};

std::string Shown(const LimitsConfig& limits) {
  return fmt::format("{} MiB of memory, {} cpus, {} processes", limits.memory_bytes >> 20,
                     limits.cpus, limits.pids);
}

}  // namespace

void SessionManagerImpl::UseLevels(PolicyDesk& desk) {
  desk_ = &desk;
  OnLevelChange([this](const std::string& sandbox_id, const std::string& /*level*/) {
    EntryPtr entry;
    {
      MutexLock hold(mu_);
      const auto found = by_id_.find(sandbox_id);
      entry = found == by_id_.end() ? nullptr : found->second;
    }
    if (entry != nullptr) {
      FollowLimitsSoon(entry);
    }
  });
}

void SessionManagerImpl::FollowLimits() {
  std::vector<EntryPtr> entries;
  {
    MutexLock hold(mu_);
    for (const auto& [id, entry] : by_id_) {
      entries.push_back(entry);
    }
  }
  for (const EntryPtr& entry : entries) {
    FollowLimitsSoon(entry);
  }
}

LimitsConfig SessionManagerImpl::LimitsToMake(const std::string& name) const {
  const LimitsConfig& base = host_.config.sandbox.limits;
  if (desk_ == nullptr) {
    return base;
  }
  LimitsConfig limits = desk_->LimitsOfName(name);
  // Its /tmp and the like are memory as well.
  if (limits.memory_bytes < base.memory_bytes) {
    FitToMemory(limits);
  }
  return limits;
}

void SessionManagerImpl::FollowLimitsSoon(const EntryPtr& entry) {
  if (desk_ == nullptr) {
    return;
  }
  {
    MutexLock hold(mu_);
    const bool open =
        entry->state == SessionState::kRunning || entry->state == SessionState::kFrozen;
    if (!open || entry->limiting ||
        (entry->limits_problem.empty() &&
         SameLiveLimits(entry->identity.limits, desk_->LimitsOfName(entry->name)))) {
      return;
    }
    entry->limiting = true;
  }
  // If we are stopping, the next start does it.
  static_cast<void>(jobs_.Post([this, entry] {
    const bool done = FollowLimitsOf(entry);
    {
      MutexLock hold(mu_);
      entry->limiting = false;
    }
    if (done) {
      // The level may have fallen further meanwhile.
      FollowLimitsSoon(entry);
    }
  }));
}

bool SessionManagerImpl::FollowLimitsOf(const EntryPtr& entry) {
  SandboxIdentity identity;
  {
    MutexLock hold(mu_);
    identity = entry->identity;
  }
  const LimitsConfig wanted = desk_->LimitsOfName(entry->name);
  const absl::Status changed = ChangeLimits(entry, identity, wanted);
  if (absl::IsNotFound(changed)) {
    return false;  // it is gone
  }
  if (!changed.ok()) {
    bool told = false;
    {
      MutexLock hold(mu_);
      told = !entry->limits_problem.empty();
      entry->limits_problem = Printable(std::string(changed.message()), 512);
    }
    // Tried again by the timer, told once.
    if (!told) {
      Tell("limit_failed", *entry, identity, std::string(changed.message()));
      spdlog::error("session \"{}\": sandbox {} is not held to {}: {}", Printable(entry->name, 120),
                    identity.id, Shown(wanted), Printable(std::string(changed.message()), 512));
    }
    return false;
  }
  Tell("limited", *entry, identity, Shown(wanted));
  spdlog::info("session \"{}\": sandbox {} has now {}", Printable(entry->name, 120), identity.id,
               Shown(wanted));
  // Not while somebody writes down another state of it.
  if (!BeginChange(identity.id, After(kChangeTimeout)).ok()) {
    return false;
  }
  std::string state;
  {
    MutexLock hold(mu_);
    entry->limits_problem.clear();
    entry->identity.limits.memory_bytes = wanted.memory_bytes;
    entry->identity.limits.cpus = wanted.cpus;
    entry->identity.limits.pids = wanted.pids;
    state = entry->state == SessionState::kFrozen    ? "frozen"
            : entry->state == SessionState::kRunning ? "running"
                                                     : "";
  }
  if (!state.empty()) {
    if (const absl::Status put = PutRecord(entry, state); !put.ok()) {
      spdlog::error("sandbox {}: {}", identity.id, std::string(put.message()));
    }
  }
  EndChange(entry);
  return true;
}

absl::Status SessionManagerImpl::ChangeLimits(const EntryPtr& entry,
                                              const SandboxIdentity& identity,
                                              const LimitsConfig& wanted) {
  const ContainerLimits limits{.memory_bytes = static_cast<int64_t>(wanted.memory_bytes),
                               .nano_cpus = static_cast<int64_t>(wanted.cpus * 1e9),
                               .pids = static_cast<int64_t>(wanted.pids) + kShimProcesses};
  absl::Status changed =
      host_.engine.UpdateContainer(identity.container_id, limits, After(kChangeTimeout));
  if (changed.ok() || absl::IsNotFound(changed) || absl::IsUnavailable(changed) ||
      wanted.memory_bytes >= identity.limits.memory_bytes) {
    return changed;
  }
  // What runs may hold more memory than there is to be, and the kernel then lowers nothing.
  const uint32_t ended = StopRunning(
      *this, [&](const std::string& session) { return session == entry->name; },
      After(kChangeTimeout));
  spdlog::warn("session \"{}\": {} commands were ended, as they held more than its level may have",
               Printable(entry->name, 120), ended);
  return host_.engine.UpdateContainer(identity.container_id, limits, After(kChangeTimeout));
}

}  // namespace creel
