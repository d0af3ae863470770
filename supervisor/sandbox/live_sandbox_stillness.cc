// How a sandbox stands still: frozen by the operator or an incident, or paused while nobody calls.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "supervisor/sandbox/container_spec.h"
#include "supervisor/sandbox/freezer.h"
#include "supervisor/sandbox/idle_pause.h"
#include "supervisor/sandbox/live_sandbox.h"

namespace creel {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLookTime{700};
// Whoever got hold of the shim without a lease may still be calling it.
constexpr milliseconds kJustAsked{1'000};

bool JustAsked(const std::atomic<int64_t>& asked_at) {
  return std::chrono::steady_clock::now().time_since_epoch() -
             std::chrono::steady_clock::duration(asked_at.load()) <
         kJustAsked;
}

}  // namespace

void LiveSandbox::SetFrozen(const Hold& hold) {
  MutexLock lock(mu_);
  state_ = SandboxState::kFrozen;
  reason_ = hold.reason;
  frozen_by_ = hold.method;
}

bool LiveSandbox::InUse(bool with_running) {
  {
    MutexLock lock(mu_);
    if (state_ != SandboxState::kRunning || stub_ == nullptr || detached_) {
      return true;
    }
  }
  if (JustAsked(asked_at_)) {
    return true;
  }
  if (with_running) {
    return false;
  }
  if (processes_.running() > 0) {
    return true;
  }
  const auto runs = RunsProcessOf(host_.engine, host_.abilities, identity_.container_id,
                                  pid_->load(), identity_.tool_uid, After(kLookTime));
  return !runs.ok() || *runs;
}

absl::StatusOr<bool> LiveSandbox::PauseIdle(const std::function<bool()>& idle, bool with_running,
                                            Deadline deadline) {
  MutexLock change(change_mu_);
  if (pause_.paused() || pause_.unsettled() || !idle() || InUse(with_running)) {
    return false;
  }
  pause_.Announce();
  // From here on whoever comes sees that, and waits for change_mu_; who came before is seen here.
  if (!idle() || JustAsked(asked_at_)) {
    pause_.Withdraw();
    return false;
  }
  RETURN_IF_ERROR(pause_.Pause(identity_.container_id, deadline));
  return true;
}

absl::Status LiveSandbox::Resume(Deadline deadline) {
  MutexLock change(change_mu_);
  return pause_.Resume(identity_.container_id, pid_->load(), deadline);
}

absl::Status LiveSandbox::SettleResume(Deadline deadline) {
  MutexLock change(change_mu_);
  return pause_.Settle(identity_.container_id, pid_->load(), deadline);
}

absl::StatusOr<std::string> LiveSandbox::Freeze(const std::string& reason, Deadline deadline) {
  return FreezeBy(reason, /*quickly=*/false, deadline);
}

absl::StatusOr<std::string> LiveSandbox::FreezeQuickly(const std::string& reason,
                                                       Deadline deadline) {
  return FreezeBy(reason, /*quickly=*/true, deadline);
}

absl::StatusOr<std::string> LiveSandbox::FreezeBy(const std::string& reason, bool quickly,
                                                  Deadline deadline) {
  MutexLock change(change_mu_);
  {
    MutexLock lock(mu_);
    if (state_ == SandboxState::kFrozen) {
      return absl::FailedPreconditionError(
          fmt::format("the sandbox is frozen already: {}", reason_));
    }
    if (state_ != SandboxState::kRunning) {
      return absl::FailedPreconditionError(fmt::format("there is nothing to freeze: {}", reason_));
    }
    // First the gate: no call begins while the processes are being stopped.
    state_ = SandboxState::kFrozen;
    reason_ = reason;
  }
  // The mark covers a crash in between. One that cannot be written holds nothing up: what stands
  // still is what counts.
  absl::Status marked = WriteHold(paths_.hold, {.method = kFrozenByEngine, .reason = reason});
  absl::StatusOr<std::string> method = std::string(kFrozenByEngine);
  if (!pause_.TurnIntoFreeze(identity_.container_id, pid_->load(), deadline)) {
    method = quickly
                 ? FreezeContainerQuickly(host_.engine, host_.abilities, identity_.container_id,
                                          pid_->load(), deadline)
                 : FreezeContainer(host_.engine, host_.abilities, identity_.container_id, deadline);
  }
  if (method.ok() && *method == kKilled) {
    (void)RemoveHold(paths_.hold);
    {
      MutexLock lock(mu_);
      state_ = SandboxState::kRunning;  // so that Lose counts
    }
    Lose(fmt::format("the sandbox could not be frozen and was killed instead ({})", reason));
    return method;
  }
  if (method.ok()) {
    if (absl::Status again = WriteHold(paths_.hold, {.method = *method, .reason = reason});
        marked.ok()) {
      marked = again;
    }
    pause_.RemoveMark();
    {
      MutexLock lock(mu_);
      frozen_by_ = *method;
      freeze_warning_ = marked.ok() ? ""
                                    : fmt::format("it is not marked on the disk: {}",
                                                  std::string(marked.message()));
    }
    TellWaiters(absl::FailedPreconditionError(fmt::format("the sandbox was frozen: {}", reason)));
    return method;
  }
  (void)RemoveHold(paths_.hold);
  {
    MutexLock lock(mu_);
    if (state_ == SandboxState::kFrozen) {
      state_ = SandboxState::kRunning;
      reason_.clear();
    }
  }
  if (method.status().code() == absl::StatusCode::kNotFound) {
    Lose(fmt::format("container '{}' is gone", ContainerName(identity_.id)));
  }
  return method;
}

absl::Status LiveSandbox::Thaw(Deadline deadline) {
  MutexLock change(change_mu_);
  std::string method;
  {
    MutexLock lock(mu_);
    if (state_ != SandboxState::kFrozen) {
      return absl::FailedPreconditionError("the sandbox is not frozen");
    }
    method = frozen_by_;
  }
  RETURN_IF_ERROR(
      ThawContainer(host_.engine, host_.abilities, identity_.container_id, method, deadline));
  RETURN_IF_ERROR(RemoveHold(paths_.hold));
  {
    MutexLock lock(mu_);
    if (state_ == SandboxState::kFrozen) {
      state_ = SandboxState::kRunning;
      reason_.clear();
      frozen_by_.clear();
    }
  }
  // A shim that was adopted frozen could not call until now; the next call should find it.
  constexpr milliseconds kCallAfterThaw{2'000};
  return WaitForLink(std::min(deadline, After(kCallAfterThaw)));
}

}  // namespace creel
