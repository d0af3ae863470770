// Closing, freezing and thawing: what changes a session that is open.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/events.h"
#include "supervisor/base/escape.h"
#include "supervisor/sandbox/freezer.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/record_codec.h"
#include "supervisor/session/session_manager_impl.h"

namespace creel {
namespace {

constexpr size_t kMaxReason = 1024;
// A shim that stood still calls home as soon as it may run.
constexpr std::chrono::seconds kLinkTimeout{5};

// Why calls end when this process does; what runs in the sandbox goes on.
constexpr char kLetGo[] = "the supervisor let go of the sandbox";

// Waits until the shim can be called: one whose sandbox was adopted while it was frozen has yet to
// find the new supervisor. One that does not come shows in the calls.
void AwaitLink(Sandbox& sandbox, Deadline deadline) {
  const Deadline until = std::min(deadline, After(kLinkTimeout));
  while (!sandbox.shim().ok() && sandbox.state() == SandboxState::kRunning &&
         std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

absl::Status ContainerIsGone() {
  return absl::FailedPreconditionError(
      "the container of this session is gone; only its record and its workspace are left. Close "
      "it with --force");
}

bool IsGone(const absl::Status& thawed) { return thawed == ContainerIsGone(); }

}  // namespace

absl::StatusOr<SessionManagerImpl::EntryPtr> SessionManagerImpl::BeginChange(
    const std::string& session, Deadline deadline) {
  MutexLock hold(mu_);
  while (true) {
    EntryPtr entry = FindLocked(session);
    if (entry == nullptr) {
      return NotOpenLocked(session);
    }
    if (!entry->busy) {
      entry->busy = true;
      return entry;
    }
    if (!changed_.WaitUntil(mu_, deadline)) {
      return absl::DeadlineExceededError(
          fmt::format("session '{}' is still being {}; try again", Printable(session, 120),
                      entry->state == SessionState::kOpening   ? "opened"
                      : entry->state == SessionState::kClosing ? "closed"
                                                               : "changed"));
    }
  }
}

void SessionManagerImpl::EndChange(const EntryPtr& entry) {
  MutexLock hold(mu_);
  entry->busy = false;
  changed_.SignalAll();
}

void SessionManagerImpl::Tell(const char* what, const SessionEntry& entry,
                              const SandboxIdentity& identity, const std::string& reason) const {
  if (host_.audit != nullptr) {
    host_.audit->Keep(SessionEvent(what,
                                   {.session = entry.name,
                                    .sender = entry.sender,
                                    .sandbox = identity.id,
                                    .container = identity.container_id},
                                   reason));
  }
}

absl::Status SessionManagerImpl::TellFirst(const char* what, const SessionEntry& entry,
                                           const SandboxIdentity& identity) const {
  return host_.audit == nullptr ? absl::OkStatus()
                                : host_.audit->Append(SessionEvent(what,
                                                                   {.session = entry.name,
                                                                    .sender = entry.sender,
                                                                    .sandbox = identity.id,
                                                                    .container = {}},
                                                                   ""));
}

void SessionManagerImpl::WatchLoss(const EntryPtr& entry) {
  std::shared_ptr<Sandbox> sandbox;
  {
    MutexLock hold(mu_);
    sandbox = entry->sandbox;
  }
  if (host_.audit == nullptr || sandbox == nullptr) {
    return;
  }
  // Holds no reference to the sandbox, which holds this.
  auto watch = sandbox->OnLost(
      [audit = host_.audit, name = entry->name, sender = entry->sender, id = sandbox->identity().id,
       container = sandbox->identity().container_id](const absl::Status& why) {
        if (absl::IsUnavailable(why) && why.message() != "the sandbox was closed" &&
            why.message() != kLetGo) {
          audit->Keep(SessionEvent(
              "lost", {.session = name, .sender = sender, .sandbox = id, .container = container},
              std::string(why.message())));
        }
      });
  sandbox->processes().OnEnded([audit = host_.audit, name = entry->name, sender = entry->sender,
                                id = sandbox->identity().id](const shim::v1::ProcessInfo& process,
                                                             const OutputLog::Digest& output) {
    const std::string outcome = ExitText(process.exit());
    if (outcome == fmt::format("lost: {}", kLetGo)) {
      return;  // it goes on
    }
    audit->Keep(ProcessEnded({.session = name, .sender = sender, .sandbox = id, .container = {}},
                             process.process_id(), outcome,
                             {.bytes = output.bytes,
                              .missed = output.missed,
                              .sha256 = output.sha256,
                              .head = output.head}));
  });
  MutexLock hold(mu_);
  entry->loss_watch = std::move(watch);
}

void SessionManagerImpl::CutEgress(const std::string& sandbox_id, const std::string& reason) const {
  if (host_.cut_egress) {
    host_.cut_egress(sandbox_id, reason);
  }
}

void SessionManagerImpl::RestoreEgress(const std::string& sandbox_id) const {
  if (host_.restore_egress) {
    host_.restore_egress(sandbox_id);
  }
}

absl::Status SessionManagerImpl::PutRecord(const EntryPtr& entry, const std::string& state) {
  SessionRecord record;
  {
    MutexLock hold(mu_);
    IdentityToRecord(entry->identity, record);
    record.reason = entry->reason;
  }
  record.session = entry->name;
  record.sender = entry->sender;
  record.state = state;
  record.opened_at = entry->opened_at;
  record.last_call_at = entry->last_call_at();
  return Annotate(store_.Put(record), "write the session down");
}

absl::Status SessionManagerImpl::Dispose(const EntryPtr& entry, Deadline deadline) {
  SandboxIdentity identity;
  std::shared_ptr<Sandbox> sandbox;
  std::string reason;
  bool again = false;
  {
    MutexLock hold(mu_);
    entry->state = SessionState::kClosing;
    identity = entry->identity;
    sandbox = entry->sandbox;
    reason = entry->reason;
    again = leftovers_.contains(identity.id);
  }
  if (!again) {
    Tell("closing", *entry, identity, reason);
  }
  CutEgress(identity.id, "the session was closed");
  // If this cannot be written, a restart in between adopts the sandbox instead of removing it.
  if (const absl::Status put = PutRecord(entry, "closing"); !put.ok()) {
    spdlog::error("sandbox {}: {}", identity.id, put.message().data());
  }
  absl::Status gone = absl::OkStatus();
  if (sandbox != nullptr) {
    gone = sandbox->Close(deadline);
  }
  if (sandbox == nullptr || !gone.ok()) {
    gone = sandboxes_.Remove(host_, identity, deadline);
  }
  if (gone.ok()) {
    RestoreEgress(identity.id);  // nobody is behind that id any more
    gone = store_.Remove(identity.id);
  }
  if (gone.ok() || !again) {
    Tell(gone.ok() ? "closed" : "leftover", *entry, identity, std::string(gone.message()));
  }
  MutexLock hold(mu_);
  entry->sandbox = nullptr;
  entry->loss_watch = nullptr;
  if (gone.ok()) {
    leftovers_.erase(identity.id);
    return gone;
  }
  entry->reason = fmt::format("not removed yet: {}", std::string(gone.message()));
  leftovers_[identity.id] = entry;
  spdlog::error("sandbox {}: {}; it will be tried again", identity.id,
                Printable(entry->reason, 1024));
  return Annotate(gone, "the session is closed, and its remains will be removed later");
}

absl::Status SessionManagerImpl::FinishClosing(const EntryPtr& entry, Deadline deadline) {
  absl::Status gone = Dispose(entry, deadline);
  std::vector<SessionRequest> waiting;
  {
    MutexLock hold(mu_);
    waiting.swap(entry->waiting);
    if (const auto found = entries_.find(entry->name);
        found != entries_.end() && found->second == entry) {
      entries_.erase(found);
    }
    by_id_.erase(entry->identity.id);
    entry->busy = false;
    changed_.SignalAll();
  }
  if (desk_ != nullptr && gone.ok()) {
    // The next sandbox of this name starts afresh. What is not forgotten is only kept too low.
    static_cast<void>(desk_->trust().Forget(entry->name));
  }
  for (SessionRequest& request : waiting) {
    Ask(std::move(request));
  }
  return gone;
}

absl::Status SessionManagerImpl::Close(const std::string& session, bool force, Deadline deadline) {
  ASSIGN_OR_RETURN(const EntryPtr entry, BeginChange(session, deadline));
  bool frozen = false;
  {
    MutexLock hold(mu_);
    frozen = entry->state == SessionState::kFrozen && !force;
    if (!frozen) {
      entry->state = SessionState::kClosing;
    }
  }
  if (frozen) {
    EndChange(entry);
    return absl::FailedPreconditionError(
        fmt::format("session '{}' is frozen, and closing it destroys the evidence; thaw it first, "
                    "or close it with --force",
                    Printable(session, 120)));
  }
  const absl::Status gone = FinishClosing(entry, deadline);
  if (gone.ok()) {
    spdlog::info("session \"{}\": closed on request", Printable(entry->name, 120));
  }
  return gone;
}

absl::StatusOr<std::string> SessionManagerImpl::Freeze(const std::string& session,
                                                       const std::string& reason,
                                                       Deadline deadline) {
  return FreezeBy(session, reason, /*quickly=*/false, deadline);
}

absl::StatusOr<std::string> SessionManagerImpl::FreezeQuickly(const std::string& session,
                                                              const std::string& reason,
                                                              Deadline deadline) {
  return FreezeBy(session, reason, /*quickly=*/true, deadline);
}

absl::StatusOr<std::string> SessionManagerImpl::FreezeBy(const std::string& session,
                                                         const std::string& reason, bool quickly,
                                                         Deadline deadline) {
  if (reason.empty() || reason.size() > kMaxReason) {
    return absl::InvalidArgumentError(
        fmt::format("a freeze needs a reason of 1 to {} bytes", kMaxReason));
  }
  ASSIGN_OR_RETURN(const EntryPtr entry, BeginChange(session, deadline));
  std::shared_ptr<Sandbox> sandbox;
  {
    MutexLock hold(mu_);
    sandbox = entry->sandbox;
  }
  // Asked without the lock, as all that a sandbox is asked.
  absl::Status refused;
  if (sandbox == nullptr || sandbox->state() == SandboxState::kLost) {
    refused = absl::FailedPreconditionError(fmt::format(
        "session '{}' has no living container that could be frozen", Printable(session, 120)));
  } else if (sandbox->state() == SandboxState::kFrozen) {
    refused = absl::FailedPreconditionError(fmt::format("session '{}' is frozen already: {}",
                                                        Printable(session, 120),
                                                        Printable(sandbox->reason(), 256)));
  }
  if (!refused.ok()) {
    EndChange(entry);
    return refused;
  }
  {
    // The gate first: from here on every call is refused, even if the engine does not do its part.
    MutexLock hold(mu_);
    entry->state = SessionState::kFrozen;
    entry->reason = reason;
  }
  Tell("freezing", *entry, sandbox->identity(), reason);
  CutEgress(sandbox->identity().id, fmt::format("the session is frozen: {}", reason));
  const absl::Status put = PutRecord(entry, "frozen");
  absl::StatusOr<std::string> method =
      quickly ? sandbox->FreezeQuickly(reason, deadline) : sandbox->Freeze(reason, deadline);
  Tell(method.ok() ? "frozen" : "freeze_failed", *entry, sandbox->identity(),
       method.ok() ? *method : std::string(method.status().message()));
  if (method.ok()) {
    // It stands still all the same.
    std::string warning =
        put.ok() ? sandbox->freeze_warning()
                 : fmt::format("a restart would not know it: {}", std::string(put.message()));
    if (!warning.empty()) {
      spdlog::error("session \"{}\": frozen, but {}", Printable(entry->name, 120),
                    Printable(warning, 512));
    }
    MutexLock hold(mu_);
    entry->warning = std::move(warning);
  }
  EndChange(entry);
  if (method.ok()) {
    spdlog::warn("session \"{}\": frozen ({}): {}", Printable(entry->name, 120), *method,
                 Printable(reason, 256));
  }
  if (!method.ok()) {
    return Annotate(method.status(),
                    "the session's calls are refused, but it does not stand still");
  }
  return method;
}

absl::Status SessionManagerImpl::Thaw(const std::string& session, Deadline deadline) {
  return ThawBy(session, /*incident_ends=*/false, deadline);
}

absl::Status SessionManagerImpl::ThawHeld(const std::string& session, Deadline deadline) {
  return ThawBy(session, /*incident_ends=*/true, deadline);
}

absl::Status SessionManagerImpl::ThawBy(const std::string& session, bool incident_ends,
                                        Deadline deadline) {
  ASSIGN_OR_RETURN(const EntryPtr entry, BeginChange(session, deadline));
  std::shared_ptr<Sandbox> sandbox;
  std::string reason;
  SandboxIdentity identity;
  bool frozen = false;
  {
    MutexLock hold(mu_);
    identity = entry->identity;
    frozen = entry->state == SessionState::kFrozen;
    sandbox = entry->sandbox;
    reason = entry->reason;
  }
  absl::Status thawed = frozen ? absl::OkStatus()
                               : absl::FailedPreconditionError(fmt::format(
                                     "session '{}' is not frozen", Printable(session, 120)));
  if (thawed.ok() && !incident_ends) {
    thawed = holds_.Check(entry->name, entry->sender);
  }
  if (!thawed.ok()) {
    EndChange(entry);
    return thawed;
  }
  Tell("thawing", *entry, identity, reason);
  const SandboxState state = sandbox == nullptr ? SandboxState::kClosed : sandbox->state();
  if (sandbox == nullptr) {
    thawed = ThawFromRecord(entry, deadline);
  } else if (state == SandboxState::kFrozen) {
    thawed = sandbox->Thaw(deadline);
  } else if (state != SandboxState::kRunning) {
    thawed = ContainerIsGone();
  }
  // What the container left is removed with the next opening, as of any that was lost.
  const bool lost = incident_ends && IsGone(thawed);
  if (lost) {
    {
      MutexLock hold(mu_);
      entry->reason = fmt::format("{}; its container is gone", reason);
    }
    thawed = PutRecord(entry, "running");
  } else if (thawed.ok()) {
    {
      MutexLock hold(mu_);
      entry->reason.clear();
      entry->warning.clear();
      sandbox = entry->sandbox;
    }
    // Before the tools notice that they go on.
    RestoreEgress(identity.id);
    AwaitLink(*sandbox, deadline);
    WatchLoss(entry);  // the freeze used the former one up
    thawed = PutRecord(entry, "running");
  }
  {
    MutexLock hold(mu_);
    if (thawed.ok() && lost) {
      entry->state = SessionState::kLost;
      entry->sandbox = nullptr;
    } else if (thawed.ok()) {
      entry->state = SessionState::kRunning;
      entry->CalledAt(clock_.Now());
    } else {
      // Its calls stay refused.
      entry->reason = reason;
    }
  }
  Tell(!thawed.ok() ? "thaw_failed"
       : lost       ? "lost"
                    : "thawed",
       *entry, identity, std::string(thawed.message()));
  EndChange(entry);
  if (thawed.ok()) {
    spdlog::info("session \"{}\": {}", Printable(entry->name, 120), lost ? "lost" : "thawed");
    if (!lost && going_on_) {
      going_on_(entry->name, deadline);
    }
  }
  return thawed;
}

absl::Status SessionManagerImpl::ThawFromRecord(const EntryPtr& entry, Deadline deadline) {
  SandboxIdentity identity;
  {
    MutexLock hold(mu_);
    identity = entry->identity;
  }
  const absl::Status unpaused = ThawContainer(host_.engine, host_.abilities, identity.container_id,
                                              kFrozenByEngine, deadline);
  if (absl::IsNotFound(unpaused)) {
    return ContainerIsGone();
  }
  if (!unpaused.ok() && !absl::IsFailedPrecondition(unpaused) && !absl::IsAlreadyExists(unpaused)) {
    return unpaused;
  }
  absl::StatusOr<std::shared_ptr<Sandbox>> adopted = sandboxes_.Adopt(host_, identity, deadline);
  if (!adopted.ok()) {
    return Annotate(adopted.status(), "the container was let go on, but its shim does not answer");
  }
  if ((*adopted)->state() == SandboxState::kFrozen) {
    RETURN_IF_ERROR((*adopted)->Thaw(deadline));
  }
  {
    MutexLock hold(mu_);
    entry->sandbox = *std::move(adopted);
  }
  WatchLoss(entry);
  return absl::OkStatus();
}

}  // namespace creel
