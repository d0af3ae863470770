#include "supervisor/incident/incident_manager.h"

#include <dirent.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <set>

#include "supervisor/audit/audit_query.h"
#include "supervisor/audit/events.h"
#include "supervisor/audit/line.h"
#include "supervisor/audit/record_files.h"
#include "supervisor/base/escape.h"
#include "supervisor/incident/stop_command.h"
#include "supervisor/session/sandbox_factory.h"

namespace creel {
namespace {

using std::chrono::microseconds;
using std::chrono::steady_clock;

constexpr size_t kMaxReason = 1024;
constexpr std::chrono::seconds kFreezeWithin{20};
constexpr std::chrono::seconds kThawWithin{20};
constexpr std::chrono::seconds kRemoveWithin{60};
constexpr std::chrono::minutes kCaptureWithin{10};
constexpr size_t kMaxIncidentFile = 16u << 20;
// Sessions that were being opened when the gate shut come up after the first look.
constexpr int kLooks = 5;

microseconds Since(steady_clock::time_point then) {
  return std::chrono::duration_cast<microseconds>(steady_clock::now() - then);
}

// Counts jobs down.
class Pending {
 public:
  void Add() {
    MutexLock hold(mu_);
    ++left_;
  }
  void Done() {
    MutexLock hold(mu_);
    --left_;
    changed_.SignalAll();
  }
  void Wait() {
    MutexLock hold(mu_);
    while (left_ > 0) {
      changed_.Wait(mu_);
    }
  }

 private:
  Mutex mu_;
  CondVar changed_;
  size_t left_ ABSL_GUARDED_BY(mu_) = 0;
};

std::string FreezeReason(const Incident& incident) {
  return fmt::format("incident {}: {}", incident.id, incident.reason);
}

uint64_t NumberOf(const std::string& id) {
  return id.empty() || id.find_first_not_of("0123456789") != std::string::npos || id.size() > 12
             ? 0
             : std::strtoull(id.c_str(), nullptr, 10);
}

// What a capture left that was killed: nobody goes on with it, and it can be large.
void RemoveUnfinished(const std::string& folder) {
  const auto close = [](DIR* dir) { ::closedir(dir); };
  const std::unique_ptr<DIR, decltype(close)> dir(::opendir(folder.c_str()), close);
  while (const dirent* entry = dir == nullptr ? nullptr : ::readdir(dir.get())) {
    if (std::string_view(entry->d_name).ends_with(".tar.zst.new")) {
      static_cast<void>(::unlinkat(::dirfd(dir.get()), entry->d_name, 0));
    }
  }
}

}  // namespace

IncidentManager::IncidentManager(const Rooms& rooms) : rooms_(rooms), capture_(rooms.evidence) {}

IncidentManager::~IncidentManager() {
  captures_.Stop();
  freezers_.Stop();
}

absl::StatusOr<std::unique_ptr<IncidentManager>> IncidentManager::Create(const Rooms& rooms) {
  std::unique_ptr<IncidentManager> manager(new IncidentManager(rooms));
  RETURN_IF_ERROR(manager->Load());
  return manager;
}

std::string IncidentManager::Folder(const std::string& id) const {
  return fmt::format("{}/incidents/{}", rooms_.evidence.config.paths.state_dir, id);
}

absl::Status IncidentManager::Load() {
  std::map<uint64_t, Incident> found;
  ASSIGN_OR_RETURN(const std::vector<Store::IncidentRow> rows, rooms_.store.ListIncidents());
  for (const Store::IncidentRow& row : rows) {
    absl::StatusOr<Incident> incident = IncidentFromJson(row.body);
    if (incident.ok() && NumberOf(incident->id) != 0) {
      found[NumberOf(incident->id)] = *std::move(incident);
    } else {
      spdlog::error("the store's incident {} cannot be read: {}", Printable(row.id, 32),
                    Printable(std::string(incident.status().message()), 256));
    }
  }
  // What a lost database does not know any more, the folders do.
  const std::string folder = fmt::format("{}/incidents", rooms_.evidence.config.paths.state_dir);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, fmt::format("make the folder '{}'", folder));
  }
  const auto close = [](DIR* dir) { ::closedir(dir); };
  const std::unique_ptr<DIR, decltype(close)> dir(::opendir(folder.c_str()), close);
  uint64_t highest = found.empty() ? 0 : found.rbegin()->first;
  while (const dirent* entry = dir == nullptr ? nullptr : ::readdir(dir.get())) {
    const uint64_t number = NumberOf(entry->d_name);
    if (number == 0) {
      continue;
    }
    highest = std::max(highest, number);
    RemoveUnfinished(Folder(entry->d_name));
    if (found.contains(number)) {
      continue;
    }
    const absl::StatusOr<std::string> text =
        ReadRecordFile(Folder(entry->d_name) + "/incident.json", kMaxIncidentFile);
    absl::StatusOr<Incident> incident = text.ok() ? IncidentFromJson(*text) : text.status();
    if (!incident.ok() || NumberOf(incident->id) != number) {
      spdlog::error("the folder of incident {} tells nothing of it", number);
      continue;
    }
    spdlog::warn("incident {} is not in the store, and was read from its folder", number);
    static_cast<void>(rooms_.store.PutIncident(
        {.id = incident->id, .state = StateText(incident->state), .body = *text}));
    found[number] = *std::move(incident);
  }
  MutexLock hold(mu_);
  incidents_ = std::move(found);
  next_ = highest + 1;
  ApplyHoldsLocked();
  return absl::OkStatus();
}

void IncidentManager::ApplyHoldsLocked() {
  std::vector<HoldRule> holds;
  for (const auto& [number, incident] : incidents_) {
    if (incident.state == IncidentState::kOpen) {
      holds.push_back(incident.hold());
    }
  }
  rooms_.evidence.sessions.SetHolds(holds);
}

void IncidentManager::Cut(const std::string& sandbox, const Incident& incident) const {
  if (rooms_.cut) {
    rooms_.cut(sandbox, FreezeReason(incident));
  }
}

void IncidentManager::Restore(const Incident& incident) const {
  if (!rooms_.restore) {
    return;
  }
  // What another open incident is about, or somebody else froze, stays cut.
  std::set<std::string> held;
  bool all = false;
  for (const Incident& other : List()) {
    if (other.state == IncidentState::kOpen) {
      all = all || other.scope == HoldRule::Scope::kAll;
      for (const IncidentSandbox& each : other.sandboxes) {
        held.insert(each.sandbox_id);
      }
    }
  }
  for (const IncidentSandbox& each : incident.sandboxes) {
    if (!each.frozen_before && !held.contains(each.sandbox_id)) {
      rooms_.restore(each.sandbox_id);
    }
  }
  if (!all) {
    rooms_.restore("");
  }
}

absl::Status IncidentManager::Save(const Incident& incident) {
  const std::string body = IncidentToJson(incident);
  absl::Status saved = rooms_.store.PutIncident(
      {.id = incident.id, .state = StateText(incident.state), .body = body});
  const std::string folder = Folder(incident.id);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, fmt::format("make the folder '{}'", folder));
  }
  RETURN_IF_ERROR(WriteRecordFile(folder + "/incident.json", body));
  return saved;
}

void IncidentManager::Tell(const char* what, const Incident& incident, const std::string& reason) {
  std::vector<std::string> sessions;
  for (const IncidentSandbox& each : incident.sandboxes) {
    sessions.push_back(each.session);
  }
  AuditEvent event = IncidentEvent(what, incident.id, reason, sessions);
  event.Text("scope", ScopeText(incident));
  rooms_.evidence.audit.Keep(event);
  // To the disk at once.
  static_cast<void>(rooms_.evidence.audit.Sync());
}

std::vector<std::string> IncidentManager::ReachedBy(const std::string& sender) const {
  constexpr std::string_view kKey = ",\"sender\":\"";
  std::set<std::string> ids;
  // Few senders stand in many lines, each in few spellings.
  std::map<std::string, bool, std::less<>> same;
  // The record has it as it can be printed, and as JSON.
  const std::string shown = Printable(sender, kMaxReason);
  AuditReader reader(rooms_.evidence.audit.directory(), {});
  while (true) {
    const absl::StatusOr<std::optional<std::string_view>> line = reader.Next();
    if (!line.ok() || !*line) {
      return {ids.begin(), ids.end()};
    }
    const size_t at = (*line)->find(kKey);
    if (at == std::string_view::npos) {
      continue;
    }
    const std::string_view rest = (*line)->substr(at + kKey.size());
    size_t end = 0;
    while (end < rest.size() && rest[end] != '"') {
      end += rest[end] == '\\' ? 2 : 1;
    }
    const std::string_view spelling = rest.substr(0, end);
    auto known = same.find(spelling);
    if (known == same.end()) {
      const std::string value = FieldOf(**line, "sender").value_or("");
      known = same.emplace(spelling, SameSender(sender, value) || SameSender(shown, value)).first;
    }
    if (!known->second) {
      continue;
    }
    if (std::optional<std::string> id = FieldOf(**line, "sandbox")) {
      ids.insert(*std::move(id));
    }
  }
}

bool IncidentManager::IsMeant(const Incident& incident, const SessionView& view,
                              const std::set<std::string>& reached) {
  switch (incident.scope) {
    case HoldRule::Scope::kAll:
      return true;
    case HoldRule::Scope::kSession:
      return incident.who == view.session;
    case HoldRule::Scope::kSender:
      return SameSender(incident.who, view.sender) || reached.contains(view.identity.id);
  }
  return true;
}

void IncidentManager::FreezeAll(Incident& incident, std::vector<std::string>& problems) {
  SessionManager& sessions = rooms_.evidence.sessions;
  std::set<std::string> seen;
  for (const IncidentSandbox& each : incident.sandboxes) {
    seen.insert(each.sandbox_id);
  }
  std::set<std::string> reached;
  for (int look = 0; look < kLooks; ++look) {
    if (look == 1 && incident.scope == HoldRule::Scope::kSender) {
      // Looked up after the first round, as it may take a moment.
      const std::vector<std::string> ids = ReachedBy(incident.who);
      reached = {ids.begin(), ids.end()};
    }
    std::vector<SessionView> due;
    for (SessionView& view : sessions.List()) {
      if (IsMeant(incident, view, reached) && seen.insert(view.identity.id).second) {
        due.push_back(std::move(view));
      }
    }
    if (due.empty() && look > 0) {
      break;
    }
    std::vector<IncidentSandbox> results(due.size());
    const auto pending = std::make_shared<Pending>();
    for (size_t i = 0; i < due.size(); ++i) {
      IncidentSandbox& result = results[i];
      result = {.session = due[i].session,
                .sender = due[i].sender,
                .sandbox_id = due[i].identity.id,
                .container_id = due[i].identity.container_id,
                .method = {},
                .error = {},
                .frozen_before = false};
      if (due[i].state == SessionState::kLost) {
        result.method = "lost";
        continue;
      }
      if (due[i].state == SessionState::kFrozen) {
        // By us, if a restart came in between; else by somebody who will thaw it.
        result.frozen_before = !due[i].reason.starts_with(FreezeReason(incident));
        result.method = "before";
        continue;
      }
      pending->Add();
      const bool posted = freezers_.Post([this, &result, &incident, pending] {
        Cut(result.sandbox_id, incident);
        absl::StatusOr<std::string> method = rooms_.evidence.sessions.FreezeQuickly(
            result.sandbox_id, FreezeReason(incident), After(kFreezeWithin));
        if (method.ok()) {
          result.method = *std::move(method);
        } else {
          result.error = Printable(std::string(method.status().message()), 512);
        }
        pending->Done();
      });
      if (!posted) {
        result.error = "the supervisor is stopping";
        pending->Done();
      }
    }
    pending->Wait();
    for (IncidentSandbox& result : results) {
      // One that was being opened has its container by now.
      if (const auto view = sessions.Get(result.sandbox_id); view.ok()) {
        result.container_id = view->identity.container_id;
      } else if (result.method.empty()) {
        continue;  // its opening failed, or it was being closed: nothing is left of it
      }
      if (!result.error.empty()) {
        problems.push_back(fmt::format("session '{}' does not stand still: {}",
                                       Printable(result.session, 120), result.error));
      }
      incident.sandboxes.push_back(std::move(result));
    }
  }
}

absl::StatusOr<IncidentManager::Opened> IncidentManager::Open(const OpenRequest& request) {
  const auto began = steady_clock::now();
  if (request.reason.empty() || request.reason.size() > kMaxReason) {
    return absl::InvalidArgumentError(
        fmt::format("an incident needs a reason of 1 to {} bytes", kMaxReason));
  }
  Opened opened;
  Incident& incident = opened.incident;
  incident.scope = request.scope;
  incident.who = request.who;
  incident.reason = Printable(request.reason, kMaxReason);
  if (request.scope == HoldRule::Scope::kSession) {
    ASSIGN_OR_RETURN(const SessionView view, rooms_.evidence.sessions.Get(request.who));
    incident.who = view.session;
  } else if (request.scope == HoldRule::Scope::kSender && request.who.empty()) {
    return absl::InvalidArgumentError("no sender is named");
  }
  incident.opened_at = rooms_.evidence.clock.Now();
  {
    // The gate first: from here on no call, opening or connection gets through.
    MutexLock hold(mu_);
    incident.id = std::to_string(next_++);
    incidents_[NumberOf(incident.id)] = incident;
    opening_.insert(NumberOf(incident.id));
    ApplyHoldsLocked();
  }
  // And the ways out, before anything else takes time.
  if (incident.scope == HoldRule::Scope::kAll) {
    Cut("", incident);
  } else if (rooms_.cut) {
    for (const SessionView& view : rooms_.evidence.sessions.List()) {
      if (IsMeant(incident, view, {})) {
        Cut(view.identity.id, incident);
      }
    }
  }
  incident.gate_took = Since(began);
  rooms_.evidence.audit.Keep(IncidentEvent("opening", incident.id, incident.reason, {})
                                 .Text("scope", ScopeText(incident)));
  // Written down before anything is frozen, so that a restart goes on with it.
  absl::Status saved = rooms_.store.PutIncident(
      {.id = incident.id, .state = "open", .body = IncidentToJson(incident)});
  FreezeAll(incident, opened.problems);
  incident.freeze_took = Since(began);
  Tell("opened", incident, incident.reason);
  {
    // From here on it can be captured, thawed and torn down.
    MutexLock hold(mu_);
    incidents_[NumberOf(incident.id)] = incident;
    opening_.erase(NumberOf(incident.id));
  }
  if (const absl::Status again = Save(incident); saved.ok()) {
    saved = again;
  }
  if (request.stop_gateway) {
    const IncidentConfig& config = rooms_.evidence.config.incident;
    incident.gateway_stop = RunStopCommand(config.stop_gateway, config.stop_timeout);
    Tell("gateway_stopped", incident, incident.gateway_stop);
    const absl::Status again = Change(incident.id, [&](Incident& kept) {
                                 kept.gateway_stop = incident.gateway_stop;
                               }).status();
    if (saved.ok()) {
      saved = again;
    }
  }
  if (!saved.ok()) {
    opened.problems.push_back(
        fmt::format("the incident could not be written down: {}", std::string(saved.message())));
  }
  spdlog::warn("incident {} ({}): gate shut in {:.1f} ms, {} sandboxes frozen in {:.0f} ms: {}",
               incident.id, Printable(ScopeText(incident), 120),
               static_cast<double>(incident.gate_took.count()) / 1000, incident.sandboxes.size(),
               static_cast<double>(incident.freeze_took.count()) / 1000, incident.reason);
  if (request.teardown) {
    absl::Status done = Capture(incident.id).status();
    if (done.ok()) {
      const absl::StatusOr<Incident> down = Teardown(incident.id, /*without_evidence=*/false);
      done = down.status();
    }
    if (!done.ok()) {
      opened.problems.push_back(std::string(done.message()));
    }
    ASSIGN_OR_RETURN(incident, Get(incident.id));
  } else if (request.capture) {
    static_cast<void>(captures_.Post([this, id = incident.id] {
      if (const auto bundle = Capture(id); !bundle.ok()) {
        spdlog::error("incident {}: the evidence was not collected: {}", id,
                      Printable(std::string(bundle.status().message()), 512));
      }
    }));
  }
  return opened;
}

void IncidentManager::Resume() {
  for (Incident incident : List()) {
    if (incident.state != IncidentState::kOpen) {
      continue;
    }
    std::vector<std::string> problems;
    const size_t before = incident.sandboxes.size();
    if (incident.scope == HoldRule::Scope::kAll) {
      Cut("", incident);
    }
    for (const IncidentSandbox& each : incident.sandboxes) {
      Cut(each.sandbox_id, incident);
    }
    // Those that it has frozen and that do not stand still any more.
    for (const IncidentSandbox& each : incident.sandboxes) {
      const auto view = rooms_.evidence.sessions.Get(each.sandbox_id);
      if (view.ok() && view->state == SessionState::kRunning) {
        const auto again = rooms_.evidence.sessions.FreezeQuickly(
            each.sandbox_id, FreezeReason(incident), After(kFreezeWithin));
        if (!again.ok()) {
          problems.emplace_back(again.status().message());
        }
      }
    }
    FreezeAll(incident, problems);
    for (const std::string& problem : problems) {
      spdlog::error("incident {}: {}", incident.id, problem);
    }
    if (incident.sandboxes.size() != before) {
      const std::vector<IncidentSandbox> all = incident.sandboxes;
      static_cast<void>(Change(incident.id, [&](Incident& kept) { kept.sandboxes = all; }));
    }
    spdlog::warn("incident {} is still open: {}", incident.id, Printable(incident.reason, 256));
  }
}

std::vector<Incident> IncidentManager::List() const {
  MutexLock hold(mu_);
  std::vector<Incident> all;
  for (const auto& [number, incident] : incidents_) {
    all.push_back(incident);
  }
  return all;
}

absl::StatusOr<Incident> IncidentManager::Get(const std::string& id) const {
  MutexLock hold(mu_);
  const auto found = incidents_.find(NumberOf(id));
  if (found == incidents_.end()) {
    return absl::NotFoundError(fmt::format(
        "there is no incident '{}'; creel incident list lists them", Printable(id, 32)));
  }
  return found->second;
}

absl::StatusOr<Incident> IncidentManager::Change(const std::string& id,
                                                 const std::function<void(Incident&)>& change) {
  Incident changed;
  {
    MutexLock hold(mu_);
    const auto found = incidents_.find(NumberOf(id));
    if (found == incidents_.end()) {
      return absl::NotFoundError(fmt::format("there is no incident '{}'", Printable(id, 32)));
    }
    change(found->second);
    changed = found->second;
    ApplyHoldsLocked();
  }
  RETURN_IF_ERROR(Annotate(Save(changed), "write the incident down"));
  return changed;
}

absl::Status IncidentManager::CheckOpened(const Incident& incident) const {
  MutexLock hold(mu_);
  return !opening_.contains(NumberOf(incident.id))
             ? absl::OkStatus()
             : absl::FailedPreconditionError(fmt::format(
                   "incident {} is still being opened; try again in a moment", incident.id));
}

absl::Status IncidentManager::CheckOpen(const Incident& incident) const {
  return incident.state == IncidentState::kOpen
             ? absl::OkStatus()
             : absl::FailedPreconditionError(
                   fmt::format("incident {} has ended: it was {}", incident.id,
                               incident.state == IncidentState::kThawed ? "thawed" : "torn down"));
}

absl::StatusOr<IncidentBundle> IncidentManager::Capture(const std::string& asked) {
  MutexLock turn(turn_);
  ASSIGN_OR_RETURN(const Incident incident, Get(asked));
  RETURN_IF_ERROR(CheckOpened(incident));
  // As it is named, however it was asked for.
  const std::string& id = incident.id;
  if (incident.state == IncidentState::kTornDown) {
    return CheckOpen(incident);
  }
  const std::string folder = Folder(id);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, fmt::format("make the folder '{}'", folder));
  }
  absl::StatusOr<IncidentBundle> bundle = capture_.Run(incident, folder, After(kCaptureWithin));
  if (!bundle.ok()) {
    Tell("capture_failed", incident, std::string(bundle.status().message()));
    return bundle;
  }
  rooms_.evidence.audit.Keep(
      IncidentEvent("captured", id, "", {})
          .Text("bundle", bundle->path)
          .Text("sha256", bundle->sha256)
          .Number("bytes", static_cast<int64_t>(bundle->bytes))
          .Number("left_out", static_cast<int64_t>(bundle->left_out.size())));
  static_cast<void>(rooms_.evidence.audit.Sync());
  RETURN_IF_ERROR(Change(id, [&](Incident& kept) { kept.bundles.push_back(*bundle); }).status());
  return bundle;
}

std::vector<IncidentSandbox> IncidentManager::LeaveToOthers(const Incident& incident) {
  std::vector<IncidentSandbox> ours = incident.sandboxes;
  for (const Incident& other : List()) {
    if (other.state != IncidentState::kOpen || other.id == incident.id) {
      continue;
    }
    std::set<std::string> theirs;
    for (const IncidentSandbox& each : other.sandboxes) {
      theirs.insert(each.sandbox_id);
    }
    const size_t before = ours.size();
    std::erase_if(ours,
                  [&](const IncidentSandbox& each) { return theirs.contains(each.sandbox_id); });
    if (ours.size() == before) {
      continue;
    }
    // It is not "frozen before" any more: whoever ends last lets it go on.
    static_cast<void>(Change(other.id, [&](Incident& kept) {
      for (IncidentSandbox& each : kept.sandboxes) {
        for (const IncidentSandbox& left : incident.sandboxes) {
          if (left.sandbox_id == each.sandbox_id && !left.frozen_before) {
            each.frozen_before = false;
          }
        }
      }
    }));
  }
  return ours;
}

absl::StatusOr<Incident> IncidentManager::Thaw(const std::string& id) {
  MutexLock turn(turn_);
  ASSIGN_OR_RETURN(const Incident incident, Get(id));
  RETURN_IF_ERROR(CheckOpened(incident));
  RETURN_IF_ERROR(CheckOpen(incident));
  Tell("thawing", incident, "");
  for (const IncidentSandbox& each : LeaveToOthers(incident)) {
    if (each.frozen_before || each.method == "lost" || each.method.empty()) {
      continue;
    }
    const absl::Status thawed =
        rooms_.evidence.sessions.ThawHeld(each.sandbox_id, After(kThawWithin));
    // One that was thawed or closed on its own is no hindrance.
    const auto view = rooms_.evidence.sessions.Get(each.sandbox_id);
    if (!thawed.ok() && view.ok() && view->state == SessionState::kFrozen) {
      return absl::FailedPreconditionError(
          fmt::format("session '{}' does not go on ({}); close it (creel close --force) and try "
                      "again. The incident is still open",
                      Printable(each.session, 120), std::string(thawed.message())));
    }
  }
  absl::StatusOr<Incident> ended = Change(id, [this](Incident& kept) {
    kept.state = IncidentState::kThawed;
    kept.ended_at = rooms_.evidence.clock.Now();
  });
  Restore(incident);
  Tell("thawed", incident, "");
  return ended;
}

absl::Status IncidentManager::Remove(const IncidentSandbox& sandbox) {
  absl::Status gone =
      rooms_.evidence.sessions.Close(sandbox.sandbox_id, /*force=*/true, After(kRemoveWithin));
  if (absl::IsNotFound(gone)) {
    // The store may have lost it: its remains are found by the id.
    SandboxIdentity identity;
    identity.id = sandbox.sandbox_id;
    identity.container_id = sandbox.container_id;
    gone = ContainerFactory().Remove(rooms_.host, identity, After(kRemoveWithin));
  }
  return gone;
}

absl::StatusOr<Incident> IncidentManager::Teardown(const std::string& id, bool without_evidence) {
  MutexLock turn(turn_);
  ASSIGN_OR_RETURN(const Incident incident, Get(id));
  RETURN_IF_ERROR(CheckOpened(incident));
  RETURN_IF_ERROR(CheckOpen(incident));
  if (incident.bundles.empty() && !without_evidence) {
    return absl::FailedPreconditionError(
        fmt::format("there is no evidence of incident {} yet; collect it first (creel incident "
                    "capture {}), or do without it (--without-evidence)",
                    id, id));
  }
  Tell("tearing_down", incident, "");
  std::vector<absl::Status> results(incident.sandboxes.size());
  const auto pending = std::make_shared<Pending>();
  for (size_t i = 0; i < incident.sandboxes.size(); ++i) {
    pending->Add();
    const bool posted = freezers_.Post([this, &incident, &results, i, pending] {
      results[i] = Remove(incident.sandboxes[i]);
      pending->Done();
    });
    if (!posted) {
      results[i] = absl::UnavailableError("the supervisor is stopping");
      pending->Done();
    }
  }
  pending->Wait();
  std::vector<std::string> failed;
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].ok()) {
      failed.push_back(fmt::format("sandbox {}: {}", incident.sandboxes[i].sandbox_id,
                                   std::string(results[i].message())));
    }
  }
  if (incident.scope == HoldRule::Scope::kAll) {
    // Nobody's, but nothing is to be left that runs.
    if (const absl::Status emptied = rooms_.evidence.sessions.EmptyPool(After(kRemoveWithin));
        !emptied.ok()) {
      failed.push_back(std::string(emptied.message()));
    }
  }
  if (!failed.empty()) {
    Tell("teardown_failed", incident, fmt::format("{}", fmt::join(failed, "; ")));
    return absl::FailedPreconditionError(
        fmt::format("not everything could be removed; try again: {}", fmt::join(failed, "; ")));
  }
  absl::StatusOr<Incident> ended = Change(id, [this](Incident& kept) {
    kept.state = IncidentState::kTornDown;
    kept.ended_at = rooms_.evidence.clock.Now();
  });
  Restore(incident);
  Tell("torn_down", incident, "");
  return ended;
}

}  // namespace creel
