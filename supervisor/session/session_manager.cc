#include "supervisor/session/session_manager.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/config/text.h"
#include "supervisor/engine/event_watcher.h"
#include "supervisor/policy/placement.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/record_codec.h"
#include "supervisor/session/session_manager_impl.h"
#include "supervisor/session/warm_pool.h"

namespace creel {
namespace {

// How long one opening may take in all.
constexpr std::chrono::seconds kOpenTimeout{60};
// For one that was paused to go on.
constexpr std::chrono::seconds kResumeTimeout{10};
constexpr size_t kMaxEnvBytes = 64u << 10;
// Requests that wait for one opening.
constexpr size_t kMaxWaiting = 1024;

absl::Status FrozenStatus(const std::string& session, const std::string& reason) {
  return absl::FailedPreconditionError(
      fmt::format("session '{}' is frozen: {}; the operator can thaw it (creel thaw)",
                  Printable(session, 120), Printable(reason, 256)));
}

absl::Status StoppingStatus() {
  return absl::UnavailableError("the supervisor is stopping; try again when it is back");
}

absl::Status CheckEnv(const std::map<std::string, std::string>& env) {
  size_t bytes = 0;
  for (const auto& [name, value] : env) {
    const bool good =
        !name.empty() && name.find_first_of(std::string_view("=\0", 2)) == std::string::npos;
    if (!good || value.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(fmt::format(
          "the variable '{}' has a name or value that cannot be: names are not empty and hold "
          "neither '=' nor NUL, values no NUL",
          Printable(name, 80)));
    }
    bytes += name.size() + value.size() + 2;
  }
  if (bytes > kMaxEnvBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "the session's variables take {} bytes; at most {} are accepted", bytes, kMaxEnvBytes));
  }
  return absl::OkStatus();
}

// The same folder by another spelling is the same folder.
bool SameFolder(const std::string& a, const std::string& b) {
  if (a == b) {
    return true;
  }
  const std::unique_ptr<char, decltype(&::free)> real_a(::realpath(a.c_str(), nullptr), ::free);
  const std::unique_ptr<char, decltype(&::free)> real_b(::realpath(b.c_str(), nullptr), ::free);
  return real_a && real_b && std::string_view(real_a.get()) == real_b.get();
}

// kAlreadyExists, if the open sandbox is another than `options` ask for.
absl::Status CheckFits(const SandboxIdentity& open, const OpenOptions& options) {
  const auto differs = [&](const std::string& what) {
    return absl::AlreadyExistsError(
        fmt::format("session '{}' is open with {}; close it first to open it anew",
                    Printable(options.session, 120), what));
  };
  if (!options.workspace.empty() && !SameFolder(options.workspace, open.workspace)) {
    return differs(open.workspace.empty()
                       ? "a workspace of Creel's own"
                       : fmt::format("workspace '{}'", Printable(open.workspace, 256)));
  }
  if (options.access && *options.access != open.access) {
    return differs(fmt::format("workspace access '{}'", AccessName(open.access)));
  }
  for (const auto& [name, value] : options.env) {
    const auto found = open.env.find(name);
    if (found == open.env.end() || found->second != value) {
      return differs(fmt::format("another value of the variable '{}'", Printable(name, 80)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SessionManager>> SessionManager::Create(const Sandbox::Host& host,
                                                                       Store& store,
                                                                       const Clock& clock,
                                                                       SandboxFactory& sandboxes) {
  return std::make_unique<SessionManagerImpl>(host, store, clock, sandboxes);
}

std::unique_ptr<PoolView> SessionManager::Pool() const { return nullptr; }

std::shared_ptr<Sandbox> LeaseSandbox(std::shared_ptr<SessionEntry> entry,
                                      const std::shared_ptr<Sandbox>& sandbox, const Clock& clock) {
  struct Lease {
    Lease(std::shared_ptr<SessionEntry> e, std::shared_ptr<Sandbox> s, const Clock& c)
        : entry(std::move(e)), sandbox(std::move(s)), clock(c) {
      entry->CalledAt(clock.Now());
      // Before the caller asks whether it is paused: see SessionManagerImpl::PauseIdle.
      entry->calls.fetch_add(1);
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      entry->CalledAt(clock.Now());
      entry->calls.fetch_sub(1, std::memory_order_relaxed);
    }
    std::shared_ptr<SessionEntry> entry;
    std::shared_ptr<Sandbox> sandbox;
    const Clock& clock;
  };
  auto lease = std::make_shared<Lease>(std::move(entry), sandbox, clock);
  Sandbox* const lent = lease->sandbox.get();
  return {std::move(lease), lent};
}

SessionManagerImpl::SessionManagerImpl(const Sandbox::Host& host, Store& store, const Clock& clock,
                                       SandboxFactory& sandboxes)
    : host_(host),
      store_(store),
      clock_(clock),
      sandboxes_(sandboxes),
      tool_uids_(std::make_shared<ToolUids>(host.config.sandbox.tool_uid_base,
                                            host.config.sandbox.tool_uid_count)),
      admission_(host.config.sessions, clock.Steady()),
      limits_(host.config.sessions),
      pool_({.host = host,
             .store = store,
             .sandboxes = sandboxes,
             .uids = tool_uids_,
             .clock = clock},
            host.config.sessions) {}

SessionManagerImpl::~SessionManagerImpl() { Stop(); }

void SessionManagerImpl::Acquire(const OpenOptions& options, OnSandbox done) {
  Ask({.options = options,
       .with_settings = false,
       .done = [done = std::move(done)](absl::StatusOr<std::shared_ptr<Sandbox>> sandbox, bool) {
         done(std::move(sandbox));
       }});
}

void SessionManagerImpl::Ask(SessionRequest request) {
  const std::string& session = request.options.session;
  absl::Status refused = CheckSessionKey(session);
  if (refused.ok()) {
    refused = CheckSender(request.options.sender);
  }
  if (!refused.ok()) {
    request.done(refused, false);
    return;
  }
  const Placement placement = Place(host_.config.sandbox, session);
  if (!placement.sandboxed) {
    request.done(RunsOnHost(placement, session), false);
    return;
  }
  refused = holds_.Check(placement.sandbox_name, request.options.sender);
  if (!refused.ok()) {
    request.done(refused, false);
    return;
  }

  // The common case first. The sandbox is asked for its state without our lock, so that one that
  // is slow to answer holds up nobody else.
  EntryPtr entry;
  Seen seen;
  {
    MutexLock hold(mu_);
    const auto found = entries_.find(placement.sandbox_name);
    if (!stopping_ && found != entries_.end() && found->second->state == SessionState::kRunning) {
      entry = found->second;
      seen.sandbox = entry->sandbox;
    }
  }
  if (seen.sandbox != nullptr) {
    seen.state = seen.sandbox->state();
    if (seen.state == SandboxState::kRunning) {
      std::shared_ptr<Sandbox> lease = LeaseSandbox(std::move(entry), seen.sandbox, clock_);
      if (seen.sandbox->paused()) {
        WakeUp(std::move(request), seen.sandbox, std::move(lease));
      } else {
        request.done(std::move(lease), false);
      }
      return;
    }
  }
  {
    MutexLock hold(mu_);
    refused = AskLocked(request, placement.sandbox_name, seen);
  }
  if (!refused.ok()) {
    request.done(refused, false);
  }
}

void SessionManagerImpl::WakeUp(SessionRequest request, const std::shared_ptr<Sandbox>& sandbox,
                                std::shared_ptr<Sandbox> lease) {
  auto waiting = std::make_shared<SessionRequest>(std::move(request));
  const bool posted = jobs_.Post([sandbox, waiting, lease]() mutable {
    const absl::Status resumed = sandbox->Resume(After(kResumeTimeout));
    if (resumed.ok()) {
      waiting->done(std::move(lease), false);
    } else {
      waiting->done(Annotate(resumed, "the sandbox was paused while nobody called it"), false);
    }
    // The engine hears of it from the timer, when the call is under way or done.
  });
  if (!posted) {
    waiting->done(StoppingStatus(), false);
  }
}

absl::Status SessionManagerImpl::AskLocked(SessionRequest& request, const std::string& name,
                                           const Seen& seen) {
  if (stopping_) {
    return StoppingStatus();
  }
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    return StartOpeningLocked(request, name, nullptr);
  }
  const EntryPtr entry = found->second;
  const bool running = entry->state == SessionState::kRunning;
  if (entry->state == SessionState::kFrozen) {
    return FrozenStatus(request.options.session, entry->reason);
  }
  if (running && entry->sandbox != seen.sandbox) {
    // It has come up since we looked.
    auto again = std::make_shared<SessionRequest>(std::move(request));
    if (jobs_.Post([this, again] { Ask(std::move(*again)); })) {
      return absl::OkStatus();
    }
    request = std::move(*again);
    return StoppingStatus();
  }
  if (running && seen.state == SandboxState::kFrozen) {
    return FrozenStatus(request.options.session, "its container stands still");
  }
  if ((running || entry->state == SessionState::kLost) && !entry->busy) {
    return StartOpeningLocked(request, name, entry);
  }
  if (entry->waiting.size() >= kMaxWaiting) {
    return absl::ResourceExhaustedError(fmt::format("{} calls wait for session '{}' already",
                                                    entry->waiting.size(),
                                                    Printable(request.options.session, 120)));
  }
  entry->waiting.push_back(std::move(request));
  return absl::OkStatus();
}

absl::Status SessionManagerImpl::ResolveSettings(const OpenOptions& options,
                                                 SandboxIdentity& identity) const {
  const SandboxConfig& config = host_.config.sandbox;
  const bool folder = !options.workspace.empty();
  identity.access =
      options.access.value_or(folder ? config.workspace_access : WorkspaceAccess::kNone);
  if (folder && identity.access == WorkspaceAccess::kNone) {
    return absl::InvalidArgumentError(
        options.access
            ? "a workspace folder was named together with workspace access none; ask for "
              "ro or rw, or name no folder"
            : "a workspace folder was named, and sandbox.workspace_access is none; set it "
              "to ro or rw, and sandbox.workspace_roots to where workspaces lie");
  }
  if (!folder && identity.access != WorkspaceAccess::kNone) {
    return absl::InvalidArgumentError(
        fmt::format("workspace access {} needs a workspace folder; name one, or ask for none",
                    AccessName(identity.access)));
  }
  if (identity.access > config.workspace_access) {
    return absl::InvalidArgumentError(
        fmt::format("workspace access {} is more than sandbox.workspace_access ({}) allows",
                    AccessName(identity.access), AccessName(config.workspace_access)));
  }
  RETURN_IF_ERROR(CheckEnv(options.env));
  identity.workspace = options.workspace;
  identity.env = config.env;
  for (const auto& [name, value] : options.env) {
    identity.env[name] = value;
  }
  return absl::OkStatus();
}

absl::Status SessionManagerImpl::StartOpeningLocked(SessionRequest& request,
                                                    const std::string& name, EntryPtr predecessor) {
  const auto entry = std::make_shared<SessionEntry>();
  entry->name = name;
  entry->sender = request.options.sender;
  if (predecessor != nullptr && !request.with_settings) {
    entry->identity.workspace = predecessor->identity.workspace;
    entry->identity.access = predecessor->identity.access;
    entry->identity.env = predecessor->identity.env;
    entry->sender = predecessor->sender;
  } else {
    RETURN_IF_ERROR(ResolveSettings(request.options, entry->identity));
  }
  if (predecessor != nullptr) {
    RETURN_IF_ERROR(admission_.AdmitRenewal(clock_.Steady()));
  } else {
    const auto by_sender = std::count_if(by_id_.begin(), by_id_.end(), [&](const auto& other) {
      return other.second->sender == entry->sender;
    });
    RETURN_IF_ERROR(admission_.Admit(by_id_.size() + leftovers_.size(),
                                     static_cast<size_t>(by_sender), entry->sender,
                                     clock_.Steady()));
  }
  entry->identity.image = host_.config.sandbox.image;
  entry->identity.runtime = host_.config.sandbox.runtime;
  entry->identity.limits = host_.config.sandbox.limits;
  if (WarmPool::Taken taken = pool_.Take(entry->identity); taken.sandbox != nullptr) {
    const SandboxIdentity& made = taken.sandbox->identity();
    entry->identity.id = made.id;
    entry->identity.key = made.key;
    entry->identity.tool_uid = made.tool_uid;
    entry->identity.container_id = made.container_id;
    entry->identity.spec_hash = made.spec_hash;
    entry->identity.shim_sha256 = made.shim_sha256;
    entry->identity.workspace_bound = made.workspace_bound;
    entry->pooled = std::move(taken.sandbox);
    entry->uid = std::move(taken.uid);
  } else {
    ASSIGN_OR_RETURN(entry->identity.tool_uid, tool_uids_->Take());
    entry->uid = std::make_unique<ToolUidLease>(tool_uids_, entry->identity.tool_uid);
    entry->identity.id = Hex(RandomBytes(8));
    entry->identity.key = RandomBytes(32);
  }
  entry->identity.tool_gid = entry->identity.tool_uid;
  entry->opened_at = clock_.Now();
  entry->CalledAt(entry->opened_at);

  if (predecessor != nullptr) {
    predecessor->busy = true;
    predecessor->state = SessionState::kClosing;
  }
  pool_.OpeningBegins();
  if (!jobs_.Post([this, entry, predecessor] { OpenOnWorker(entry, predecessor); })) {
    pool_.OpeningEnds();
    return StoppingStatus();
  }
  entry->waiting.push_back(std::move(request));
  entries_[name] = entry;
  by_id_[entry->identity.id] = entry;
  return absl::OkStatus();
}

void SessionManagerImpl::OpenOnWorker(const EntryPtr& entry, const EntryPtr& predecessor) {
  if (predecessor != nullptr) {
    // What cannot be removed now is tried again later; it is no reason to refuse a new one.
    static_cast<void>(Dispose(predecessor, After(kOpenTimeout)));
    MutexLock hold(mu_);
    by_id_.erase(predecessor->identity.id);
  }
  absl::StatusOr<std::shared_ptr<Sandbox>> made = Make(entry);
  FinishOpening(entry, std::move(made));
  pool_.OpeningEnds();
}

absl::StatusOr<std::shared_ptr<Sandbox>> SessionManagerImpl::Claim(
    std::unique_ptr<PooledSandbox> pooled, SandboxIdentity& identity) {
  SandboxIdentity fresh = identity;
  absl::StatusOr<std::shared_ptr<Sandbox>> made = pooled->Claim(fresh, After(kOpenTimeout));
  if (made.ok()) {
    identity = fresh;
    return made;
  }
  // Whatever became of it, it is not used again.
  pooled.reset();
  spdlog::warn("sandbox {}: the container that waited could not be used: {}", identity.id,
               Printable(std::string(made.status().message()), 512));
  if (const absl::Status gone = sandboxes_.Remove(host_, identity, After(kOpenTimeout));
      !gone.ok()) {
    // Of a kind that does not say that nothing is left.
    return absl::InternalError(fmt::format("the container that waited could not be removed: {}",
                                           std::string(gone.message())));
  }
  if (absl::IsInvalidArgument(made.status())) {
    return made;
  }
  identity.container_id.clear();
  return sandboxes_.Create(host_, identity, After(kOpenTimeout));
}

absl::StatusOr<std::shared_ptr<Sandbox>> SessionManagerImpl::Make(const EntryPtr& entry) {
  SandboxIdentity identity;
  std::unique_ptr<PooledSandbox> pooled;
  {
    MutexLock hold(mu_);
    if (stopping_) {
      return StoppingStatus();
    }
    // Whoever it is for has been judged by now.
    entry->identity.limits = LimitsToMake(entry->name);
    identity = entry->identity;
    pooled = std::move(entry->pooled);
  }
  absl::Status written = TellFirst("opening", *entry, identity);
  if (written.ok()) {
    written = PutRecord(entry, "opening");
  }
  if (!written.ok()) {
    if (pooled != nullptr) {
      pooled.reset();
      static_cast<void>(Dispose(entry, After(kOpenTimeout)));
    }
    return written;
  }
  absl::StatusOr<std::shared_ptr<Sandbox>> made =
      pooled != nullptr ? Claim(std::move(pooled), identity)
                        : sandboxes_.Create(host_, identity, After(kOpenTimeout));
  {
    MutexLock hold(mu_);
    entry->identity = identity;
    entry->sandbox = made.ok() ? *made : nullptr;
  }
  absl::Status failed = made.status();
  if (failed.ok()) {
    failed = PutRecord(entry, "running");
  }
  if (failed.ok()) {
    return made;
  }
  // Create leaves nothing behind, as far as the engine still answers.
  const bool sure = absl::IsInvalidArgument(failed) || absl::IsFailedPrecondition(failed) ||
                    absl::IsNotFound(failed) || absl::IsResourceExhausted(failed);
  if (made.ok() || !sure || !store_.Remove(identity.id).ok()) {
    static_cast<void>(Dispose(entry, After(kOpenTimeout)));
  }
  return failed;
}

void SessionManagerImpl::FinishOpening(const EntryPtr& entry,
                                       absl::StatusOr<std::shared_ptr<Sandbox>> made) {
  std::vector<SessionRequest> waiting;
  SandboxIdentity identity;
  {
    MutexLock hold(mu_);
    identity = entry->identity;
  }
  Tell(made.ok() ? "opened" : "open_failed", *entry, identity,
       std::string(made.status().message()));
  if (made.ok()) {
    WatchLoss(entry);
  }
  {
    MutexLock hold(mu_);
    waiting.swap(entry->waiting);
    entry->busy = false;
    if (made.ok()) {
      entry->state = SessionState::kRunning;
    } else {
      const auto found = entries_.find(entry->name);
      if (found != entries_.end() && found->second == entry) {
        entries_.erase(found);
      }
      by_id_.erase(entry->identity.id);
    }
    changed_.SignalAll();
  }
  if (made.ok()) {
    // Somebody lower may have come while it was being made.
    FollowLimitsSoon(entry);
    spdlog::info(
        "session \"{}\": sandbox {} is open, in {} ms", Printable(entry->name, 120),
        (*made)->identity().id,
        std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now() - entry->opened_at)
            .count());
  } else {
    spdlog::warn("session \"{}\": not opened: {}", Printable(entry->name, 120),
                 Printable(std::string(made.status().message()), 1024));
  }
  bool created = true;
  for (SessionRequest& request : waiting) {
    // An incident may have been opened meanwhile.
    if (const absl::Status held = holds_.Check(entry->name, request.options.sender); !held.ok()) {
      request.done(held, false);
    } else if (made.ok()) {
      request.done(LeaseSandbox(entry, *made, clock_), created);
    } else {
      request.done(made.status(), false);
    }
    created = false;
  }
}

absl::StatusOr<std::pair<SessionView, bool>> SessionManagerImpl::Open(const OpenOptions& options,
                                                                      Deadline deadline) {
  struct Answer {
    Mutex mu;
    CondVar came;
    bool there ABSL_GUARDED_BY(mu) = false;
    bool created ABSL_GUARDED_BY(mu) = false;
    absl::StatusOr<std::shared_ptr<Sandbox>> sandbox ABSL_GUARDED_BY(mu) =
        absl::UnknownError("no answer yet");
  };
  const auto answer = std::make_shared<Answer>();
  Ask({.options = options,
       .with_settings = true,
       .done = [answer](absl::StatusOr<std::shared_ptr<Sandbox>> sandbox, bool created) {
         MutexLock hold(answer->mu);
         answer->there = true;
         answer->created = created;
         answer->sandbox = std::move(sandbox);
         answer->came.SignalAll();
       }});
  bool created = false;
  std::shared_ptr<Sandbox> sandbox;
  {
    MutexLock hold(answer->mu);
    while (!answer->there) {
      if (!answer->came.WaitUntil(answer->mu, deadline) && !answer->there) {
        return absl::DeadlineExceededError(fmt::format(
            "session '{}' is still being opened; ask again", Printable(options.session, 120)));
      }
    }
    ASSIGN_OR_RETURN(sandbox, std::move(answer->sandbox));
    created = answer->created;
  }
  if (!created) {
    RETURN_IF_ERROR(CheckFits(sandbox->identity(), options));
  }
  ASSIGN_OR_RETURN(SessionView view, Get(sandbox->identity().id));
  return std::pair(std::move(view), created);
}

SessionManagerImpl::EntryPtr SessionManagerImpl::FindLocked(const std::string& session) const {
  for (const std::string& name : {Place(host_.config.sandbox, session).sandbox_name, session}) {
    if (const auto found = entries_.find(name); found != entries_.end()) {
      return found->second;
    }
  }
  const auto found = by_id_.find(session);
  return found == by_id_.end() ? nullptr : found->second;
}

absl::Status SessionManagerImpl::NotOpenLocked(const std::string& session) const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) {
    names.push_back(name);
  }
  const std::string near = Nearest(session, names);
  return absl::NotFoundError(
      fmt::format("no session '{}' is open{}", Printable(session, 120),
                  near.empty() ? "; creel ps lists them"
                               : fmt::format("; did you mean '{}'?", Printable(near, 120))));
}

SessionView SessionManagerImpl::ViewLocked(const SessionEntry& entry) const {
  SessionView view{.session = entry.name,
                   .sender = entry.sender,
                   .state = entry.state,
                   .reason = entry.reason,
                   .opened_at = entry.opened_at,
                   .last_call_at = entry.last_call_at(),
                   .identity = entry.identity,
                   .processes = 0,
                   .trust_level = desk_ == nullptr ? "" : desk_->LevelOfName(entry.name),
                   .limits_problem = entry.limits_problem,
                   .warning = entry.warning};
  return view;
}

std::string SessionManagerImpl::LevelOf(const std::string& sandbox_id) const {
  std::string name;
  {
    MutexLock hold(mu_);
    const auto found = by_id_.find(sandbox_id);
    if (found == by_id_.end()) {
      return {};
    }
    name = found->second->name;
  }
  return desk_ == nullptr ? std::string() : desk_->LevelOfName(name);
}

void SessionManagerImpl::OnLevelChange(LevelListener fell) {
  if (desk_ == nullptr) {
    return;
  }
  desk_->trust().OnFall(
      [this, fell = std::move(fell)](const std::string& name, const std::string& level) {
        std::string id;
        {
          MutexLock hold(mu_);
          if (const auto found = entries_.find(name); found != entries_.end()) {
            id = found->second->identity.id;
          }
        }
        if (!id.empty()) {
          fell(id, level);
        }
      });
}

absl::StatusOr<SessionView> SessionManagerImpl::Get(const std::string& session) const {
  SessionView view;
  std::shared_ptr<Sandbox> sandbox;
  {
    MutexLock hold(mu_);
    const EntryPtr entry = FindLocked(session);
    if (entry == nullptr) {
      return NotOpenLocked(session);
    }
    view = ViewLocked(*entry);
    sandbox = entry->sandbox;
  }
  if (sandbox != nullptr) {
    if (view.state == SessionState::kRunning && sandbox->state() == SandboxState::kLost) {
      view.state = SessionState::kLost;
      view.reason = sandbox->reason();
    } else if (view.state == SessionState::kRunning && sandbox->paused()) {
      view.reason = "paused, as nobody calls it; the next call lets it go on";
    }
    view.processes = static_cast<uint32_t>(sandbox->processes().running());
  }
  return view;
}

absl::StatusOr<std::shared_ptr<Sandbox>> SessionManagerImpl::Find(
    const std::string& session) const {
  MutexLock hold(mu_);
  const EntryPtr entry = FindLocked(session);
  if (entry == nullptr) {
    return NotOpenLocked(session);
  }
  if (entry->sandbox == nullptr) {
    return absl::UnavailableError(
        fmt::format("session '{}' has no container: {}", Printable(session, 120),
                    entry->reason.empty() ? "it is being opened" : Printable(entry->reason, 256)));
  }
  return entry->sandbox;
}

std::vector<SessionView> SessionManagerImpl::List() const {
  std::vector<std::string> ids;
  std::vector<SessionView> views;
  {
    MutexLock hold(mu_);
    for (const auto& [name, entry] : entries_) {
      ids.push_back(entry->identity.id);
    }
    for (const auto& [id, entry] : leftovers_) {
      views.push_back(ViewLocked(*entry));
    }
  }
  for (const std::string& id : ids) {
    // One that has gone in between is not listed.
    if (absl::StatusOr<SessionView> view = Get(id); view.ok()) {
      views.push_back(*std::move(view));
    }
  }
  std::sort(views.begin(), views.end(), [](const SessionView& a, const SessionView& b) {
    return std::tie(a.opened_at, a.session) < std::tie(b.opened_at, b.session);
  });
  return views;
}

}  // namespace creel
