// What happens at start, at every word of the engine, and by the clock.
#include <dirent.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/engine/event_watcher.h"
#include "supervisor/sandbox/container_spec.h"
#include "supervisor/sandbox/sandbox_paths.h"
#include "supervisor/session/record_codec.h"
#include "supervisor/session/session_manager_impl.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kCloseTimeout{60};
// For containers that wait for nobody any more; what is left the next start removes.
constexpr std::chrono::seconds kEmptyPoolTime{15};

// Names in `directory` that are sandbox ids. One that is not there holds none.
std::vector<std::string> IdsIn(const std::string& directory) {
  struct CloseDir {
    void operator()(DIR* dir) const { ::closedir(dir); }
  };
  std::vector<std::string> ids;
  const std::unique_ptr<DIR, CloseDir> dir(::opendir(directory.c_str()));
  while (dir != nullptr) {
    const dirent* const entry = ::readdir(dir.get());
    if (entry == nullptr) {
      break;
    }
    if (IsSandboxId(entry->d_name)) {
      ids.emplace_back(entry->d_name);
    }
  }
  return ids;
}

// Counts jobs down.
struct Pending {
  Mutex mu;
  CondVar changed;
  size_t left ABSL_GUARDED_BY(mu) = 0;
};

std::string LabelOf(const std::map<std::string, std::string>& labels, const std::string& name) {
  const auto found = labels.find(name);
  return found == labels.end() ? "" : found->second;
}

}  // namespace

absl::Status SessionManagerImpl::Recover(Deadline deadline) {
  ASSIGN_OR_RETURN(const std::vector<SessionRecord> records, store_.List());
  const std::string label = fmt::format("creel.install={}", host_.install_id);
  ASSIGN_OR_RETURN(const std::vector<ContainerInfo> containers,
                   host_.engine.ListContainers(label, deadline));

  std::set<std::string> known;
  std::vector<SessionRecord> pooled;
  const auto pending = std::make_shared<Pending>();
  for (const SessionRecord& record : records) {
    known.insert(record.sandbox_id);
    if (!IsSandboxId(record.sandbox_id)) {
      // Nothing is named by such an id, neither folder nor container.
      spdlog::error("the store has a record of sandbox \"{}\", which is no id; it is left alone",
                    Printable(record.sandbox_id, 80));
      continue;
    }
    if (record.state == kPooledState) {
      pooled.push_back(record);
      continue;
    }
    {
      MutexLock hold(pending->mu);
      ++pending->left;
    }
    const bool posted = jobs_.Post([this, record, deadline, pending] {
      if (record.state == "running" || record.state == "frozen") {
        AdoptRecord(record, deadline);
      } else {
        RemoveRecord(record, deadline);
      }
      MutexLock hold(pending->mu);
      --pending->left;
      pending->changed.SignalAll();
    });
    if (!posted) {
      return absl::UnavailableError("the supervisor is stopping");
    }
  }
  {
    // Every job ends by the deadline or shortly after, as all that it calls does.
    MutexLock hold(pending->mu);
    while (pending->left > 0) {
      pending->changed.Wait(pending->mu);
    }
  }
  // These waited for a session, perhaps with another configuration or shim: they are nobody's loss,
  // and nobody waits for their going.
  for (const SessionRecord& record : pooled) {
    if (!jobs_.Post([this, record] { RemovePooled(record, After(kCloseTimeout)); })) {
      return absl::UnavailableError("the supervisor is stopping");
    }
  }
  PauseUnknown(containers, known, deadline);
  for (const ContainerInfo& container : containers) {
    known.insert(LabelOf(container.labels, "creel.sandbox"));
  }
  RemoveLeftFolders(known, deadline);
  FollowLimits();

  events_ = std::make_unique<EventWatcher>(
      host_.engine, label,
      EventWatcher::Callbacks{
          .on_event = [this](const EngineEvent& event) { OnEngineEvent(event); },
          .on_connected = [this] { Reconcile(); },
          .on_lost =
              [](const absl::Status& why) {
                spdlog::warn("the engine's events are not seen: {}",
                             Printable(std::string(why.message()), 512));
              },
      });
  timers_ = std::thread([this] { RunTimers(); });
  pool_.Start();
  return absl::OkStatus();
}

void SessionManagerImpl::RemovePooled(const SessionRecord& record, Deadline deadline) {
  SandboxIdentity identity;
  identity.id = record.sandbox_id;
  identity.container_id = record.container_id;
  if (sandboxes_.Remove(host_, identity, deadline).ok() && store_.Remove(identity.id).ok()) {
    return;
  }
  // Tried again by the timer.
  RemoveRecord(record, deadline);
}

void SessionManagerImpl::AdoptRecord(const SessionRecord& record, Deadline deadline) {
  const bool frozen = record.state == "frozen";
  const auto entry = std::make_shared<SessionEntry>();
  entry->name = record.session;
  entry->sender = record.sender;
  entry->opened_at = record.opened_at;
  entry->CalledAt(record.last_call_at);
  entry->touched = false;

  absl::StatusOr<SandboxIdentity> identity = IdentityFromRecord(record);
  absl::StatusOr<std::shared_ptr<Sandbox>> adopted =
      identity.ok() ? absl::UnknownError("not tried yet") : identity.status();
  if (identity.ok()) {
    if (frozen) {
      CutEgress(identity->id, fmt::format("the session is frozen: {}", record.reason));
    }
    adopted = sandboxes_.Adopt(host_, *identity, deadline);
  }
  if (adopted.ok() && frozen && (*adopted)->state() != SandboxState::kFrozen) {
    // Somebody let it go on, or the host was restarted.
    const absl::StatusOr<std::string> again = (*adopted)->Freeze(record.reason, deadline);
    if (!again.ok()) {
      spdlog::error("sandbox {}: it is to be frozen, and does not stand still: {}",
                    record.sandbox_id, Printable(std::string(again.status().message()), 512));
    }
  }
  if (!identity.ok()) {
    // The container, if there is one, is found by its name all the same.
    identity = SandboxIdentity{};
    identity->id = record.sandbox_id;
    identity->container_id = record.container_id;
  }
  const std::string why(adopted.status().message());
  Tell(adopted.ok() ? "adopted" : "lost", *entry, *identity,
       adopted.ok() && frozen ? "frozen" : why);
  {
    MutexLock hold(mu_);
    entry->sandbox = adopted.ok() ? *adopted : nullptr;
  }
  WatchLoss(entry);
  MutexLock hold(mu_);
  entry->identity = *identity;
  if (tool_uids_->Reserve(identity->tool_uid)) {
    entry->uid = std::make_unique<ToolUidLease>(tool_uids_, identity->tool_uid);
  }
  entry->busy = false;
  entry->state = frozen         ? SessionState::kFrozen
                 : adopted.ok() ? SessionState::kRunning
                                : SessionState::kLost;
  entry->reason = frozen ? record.reason : adopted.ok() ? "" : why;
  if (adopted.ok()) {
    spdlog::info("session \"{}\": sandbox {} adopted{}", Printable(entry->name, 120),
                 entry->identity.id, frozen ? ", frozen" : "");
  } else {
    spdlog::warn("session \"{}\": sandbox {} was lost{}: {}", Printable(entry->name, 120),
                 entry->identity.id, frozen ? " while it was frozen" : "", Printable(why, 512));
  }
  const auto [there, fresh] = entries_.emplace(entry->name, entry);
  if (!fresh) {
    // Two records of one session: the later one serves, the other is reached by its id and ages.
    if (there->second->opened_at < entry->opened_at) {
      there->second = entry;
    }
  }
  by_id_[entry->identity.id] = entry;
}

void SessionManagerImpl::RemoveRecord(const SessionRecord& record, Deadline deadline) {
  const auto entry = std::make_shared<SessionEntry>();
  entry->name = record.session;
  entry->sender = record.sender;
  entry->opened_at = record.opened_at;
  entry->CalledAt(record.last_call_at);
  absl::StatusOr<SandboxIdentity> identity = IdentityFromRecord(record);
  if (!identity.ok()) {
    identity = SandboxIdentity{};
    identity->id = record.sandbox_id;
  }
  entry->identity = *identity;
  spdlog::info("session \"{}\": removing what is left of sandbox {}, whose {} was cut short",
               Printable(entry->name, 120), record.sandbox_id, record.state);
  // What fails is tried again by the timer.
  static_cast<void>(Dispose(entry, deadline));
}

void SessionManagerImpl::PauseUnknown(const std::vector<ContainerInfo>& containers,
                                      const std::set<std::string>& known, Deadline deadline) {
  for (const ContainerInfo& container : containers) {
    const std::string id = LabelOf(container.labels, "creel.sandbox");
    if (known.contains(id)) {
      continue;
    }
    UnknownContainer unknown{.container_id = container.id,
                             .name = container.name,
                             .sandbox_id = id,
                             .paused = container.state == ContainerState::kPaused};
    absl::Status paused;
    if (container.state == ContainerState::kRunning) {
      paused = host_.engine.PauseContainer(container.id, deadline);
      unknown.paused = paused.ok();
    }
    spdlog::warn(
        "container {} ({}) is labelled as ours, and the store does not know it; it {}. Nothing of "
        "it is removed: look at it, then remove it with docker rm",
        Printable(container.name, 80), container.id.substr(0, 12),
        unknown.paused ? "is paused"
        : paused.ok()  ? "does not run"
                       : fmt::format("could not be paused ({})",
                                     Printable(std::string(paused.message()), 256)));
    MutexLock hold(mu_);
    unknown_.push_back(std::move(unknown));
  }
}

void SessionManagerImpl::RemoveLeftFolders(const std::set<std::string>& known, Deadline deadline) {
  std::set<std::string> left;
  // The folders that hold one folder for each sandbox are those of any sandbox's.
  const SandboxPaths any = SandboxPaths::For(host_.config.paths, "0000000000000000");
  for (const std::string& path : {any.link_dir, any.slot, any.own_dir}) {
    for (std::string& id : IdsIn(path.substr(0, path.rfind('/')))) {
      if (!known.contains(id)) {
        left.insert(std::move(id));
      }
    }
  }
  if (left.empty()) {
    return;
  }
  // After the state folder was lost, or while its disk is away, sandboxes of the install before run
  // on in the same run folder: without it they would end.
  const auto all = host_.engine.ListContainers(kSandboxLabel, deadline);
  if (!all.ok()) {
    spdlog::error("folders of {} sandboxes without a record are not removed: {}", left.size(),
                  Printable(std::string(all.status().message()), 512));
    return;
  }
  for (const ContainerInfo& container : *all) {
    const std::string id = LabelOf(container.labels, kSandboxLabel);
    if (left.erase(id) > 0) {
      spdlog::warn(
          "container {} ({}) uses this run folder and is of another install, {}; it is left alone. "
          "If the state folder '{}' is not the right one, stop creeld and bring the right one back; "
          "else remove the container with docker rm",
          Printable(container.name, 80), container.id.substr(0, 12),
          Printable(LabelOf(container.labels, kInstallLabel), 32), host_.config.paths.state_dir);
    }
  }
  for (const std::string& id : left) {
    SandboxIdentity identity;
    identity.id = id;
    const absl::Status removed = sandboxes_.Remove(host_, identity, deadline);
    if (removed.ok()) {
      spdlog::warn("removed folders of sandbox {}, which has neither record nor container", id);
    } else {
      spdlog::error(
          "folders of sandbox {}, which has neither record nor container, were not "
          "removed: {}",
          id, Printable(std::string(removed.message()), 512));
    }
  }
}

void SessionManagerImpl::OnEngineEvent(const EngineEvent& event) {
  if (event.type != "container") {
    return;
  }
  const std::string sandbox_id = LabelOf(event.attributes, "creel.sandbox");
  if (event.action == "oom") {
    MutexLock hold(mu_);
    if (by_id_.contains(sandbox_id)) {
      out_of_memory_.insert(event.id);
    }
    return;
  }
  if (event.action == "die") {
    bool out_of_memory = false;
    {
      MutexLock hold(mu_);
      out_of_memory = out_of_memory_.erase(event.id) > 0;
    }
    const std::string code = LabelOf(event.attributes, "exitCode");
    ContainerEnded(sandbox_id,
                   fmt::format("container ended with exit code {}{}",
                               code.empty() ? "unknown" : Printable(code, 16),
                               out_of_memory ? ", after a process in it ran out of memory" : ""));
  } else if (event.action == "destroy") {
    ContainerEnded(sandbox_id, "container was removed");
  }
}

void SessionManagerImpl::ContainerEnded(const std::string& sandbox_id, const std::string& why) {
  std::shared_ptr<Sandbox> sandbox;
  {
    MutexLock hold(mu_);
    const auto found = by_id_.find(sandbox_id);
    if (found == by_id_.end()) {
      pool_.ContainerEnded(sandbox_id);
    }
    // One that is being closed ends because of that.
    if (found != by_id_.end() && found->second->state != SessionState::kClosing) {
      sandbox = found->second->sandbox;
    }
  }
  if (sandbox != nullptr) {
    spdlog::warn("sandbox {}: {}", sandbox_id, why);
    sandbox->ContainerGone(why);
  }
}

void SessionManagerImpl::Reconcile() {
  std::vector<std::string> ids;
  // The engine is back: what it could not remove while it was away goes now.
  RemoveLeftovers();
  {
    MutexLock hold(mu_);
    for (const auto& [id, entry] : by_id_) {
      if (entry->sandbox != nullptr && !entry->busy) {
        ids.push_back(id);
      }
    }
  }
  for (std::string& id : pool_.Ids()) {
    ids.push_back(std::move(id));
  }
  if (ids.empty()) {
    return;
  }
  const absl::StatusOr<std::vector<ContainerInfo>> containers = host_.engine.ListContainers(
      fmt::format("creel.install={}", host_.install_id), After(host_.config.engine.timeout));
  if (!containers.ok()) {
    // The event stream breaks too, and its return brings us here again.
    return;
  }
  for (const std::string& id : ids) {
    const auto found =
        std::find_if(containers->begin(), containers->end(), [&](const ContainerInfo& container) {
          return LabelOf(container.labels, "creel.sandbox") == id;
        });
    if (found == containers->end()) {
      ContainerEnded(id, "container was removed while the engine's events were not seen");
    } else if (found->state != ContainerState::kRunning &&
               found->state != ContainerState::kPaused) {
      ContainerEnded(id, "container ended while the engine's events were not seen");
    }
  }
}

void SessionManagerImpl::Expire() {
  const auto now = clock_.Now();
  std::vector<EntryPtr> due;
  std::vector<EntryPtr> unheld;
  WriteDownCalls();
  {
    MutexLock hold(mu_);
    for (const auto& [id, entry] : by_id_) {
      const bool may_close =
          entry->state == SessionState::kRunning || entry->state == SessionState::kLost;
      if (!entry->limits_problem.empty()) {
        unheld.push_back(entry);
      }
      if (entry->busy || !may_close) {
        continue;
      }
      const bool old = now - entry->opened_at >= limits_.max_age;
      const bool idle = entry->calls == 0 && now - entry->last_call_at() >= limits_.idle_timeout;
      if (old || idle) {
        entry->busy = true;
        entry->state = SessionState::kClosing;
        entry->reason = old ? "older than sessions.max_age" : "idle for sessions.idle_timeout";
        due.push_back(entry);
      }
    }
  }
  for (const EntryPtr& entry : due) {
    spdlog::info("session \"{}\": closing, as it is {}", Printable(entry->name, 120),
                 entry->reason);
    // If we are stopping, the next start closes it.
    static_cast<void>(jobs_.Post(
        [this, entry] { static_cast<void>(FinishClosing(entry, After(kCloseTimeout))); }));
  }
  for (const EntryPtr& entry : unheld) {
    FollowLimitsSoon(entry);
  }
  RemoveLeftovers();
}

void SessionManagerImpl::RemoveLeftovers() {
  std::vector<EntryPtr> left;
  {
    MutexLock hold(mu_);
    for (const auto& [id, entry] : leftovers_) {
      left.push_back(entry);
    }
  }
  for (const EntryPtr& entry : left) {
    static_cast<void>(
        jobs_.Post([this, entry] { static_cast<void>(Dispose(entry, After(kCloseTimeout))); }));
  }
}

void SessionManagerImpl::WriteDownCalls() {
  std::vector<std::pair<std::string, std::chrono::system_clock::time_point>> calls;
  {
    MutexLock hold(mu_);
    for (const auto& [id, entry] : by_id_) {
      if (entry->touched.exchange(false)) {
        calls.emplace_back(id, entry->last_call_at());
      }
    }
  }
  for (const auto& [id, at] : calls) {
    if (const absl::Status written = store_.Touch(id, at); !written.ok()) {
      spdlog::error("write down the last call of sandbox {}: {}", id,
                    std::string(written.message()));
    }
  }
}

void SessionManagerImpl::RunTimers() {
  while (true) {
    {
      MutexLock hold(mu_);
      auto pause = std::clamp<std::chrono::milliseconds>(
          std::min(limits_.idle_timeout, limits_.max_age) / 10, std::chrono::seconds(1),
          std::chrono::seconds(30));
      if (limits_.pause_after.count() > 0) {
        pause = std::min(pause, std::max<std::chrono::milliseconds>(
                                    limits_.pause_after / 4, std::chrono::milliseconds(250)));
      }
      const Deadline until = After(pause);
      while (!stopping_ && std::chrono::steady_clock::now() < until) {
        changed_.WaitUntil(mu_, until);
      }
      if (stopping_) {
        return;
      }
    }
    Expire();
    PostPausing();
  }
}

std::vector<UnknownContainer> SessionManagerImpl::Unknown() const {
  MutexLock hold(mu_);
  return unknown_;
}

void SessionManagerImpl::SetLimits(const SessionsConfig& limits) {
  MutexLock hold(mu_);
  limits_ = limits;
  admission_.SetLimits(limits);
  pool_.SetLimits(limits);
  changed_.SignalAll();
}

void SessionManagerImpl::Stop() {
  {
    MutexLock hold(mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  events_.reset();
  if (timers_.joinable()) {
    timers_.join();
  }
  jobs_.Stop();
  pool_.Stop(After(kEmptyPoolTime));
  WriteDownCalls();
}

}  // namespace creel
