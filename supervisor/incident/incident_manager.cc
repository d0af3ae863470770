#include "supervisor/incident/incident_manager.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "supervisor/audit/events.h"
#include "supervisor/base/escape.h"
#include "supervisor/incident/at_once.h"
#include "supervisor/incident/stop_command.h"
#include "supervisor/session/sandbox_factory.h"

namespace creel {
namespace {

using std::chrono::microseconds;
using std::chrono::steady_clock;
using Work = IncidentTurns::Work;

constexpr size_t kMaxReason = 1024;
constexpr std::chrono::seconds kThawWithin{20};
constexpr std::chrono::seconds kRemoveWithin{60};
constexpr std::chrono::minutes kCaptureWithin{10};

microseconds Since(steady_clock::time_point then) {
  return std::chrono::duration_cast<microseconds>(steady_clock::now() - then);
}

std::set<std::string> SandboxesOf(const Incident& incident) {
  std::set<std::string> ids;
  for (const IncidentSandbox& each : incident.sandboxes) {
    ids.insert(each.sandbox_id);
  }
  return ids;
}

// Those that stood still when the incident came.
std::set<std::string> FrozenBefore(const Incident& incident) {
  std::set<std::string> ids;
  for (const IncidentSandbox& each : incident.sandboxes) {
    if (each.frozen_before) {
      ids.insert(each.sandbox_id);
    }
  }
  return ids;
}

absl::Status CheckOpen(const Incident& incident) {
  return incident.state == IncidentState::kOpen
             ? absl::OkStatus()
             : absl::FailedPreconditionError(
                   fmt::format("incident {} has ended: it was {}", incident.id,
                               incident.state == IncidentState::kThawed ? "thawed" : "torn down"));
}

}  // namespace

IncidentManager::IncidentManager(const Rooms& rooms)
    : rooms_(rooms),
      capture_(rooms.evidence),
      table_(rooms.store, rooms.evidence.sessions, rooms.evidence.config.paths.state_dir),
      freezer_(
          {.sessions = rooms.evidence.sessions, .audit = rooms.evidence.audit, .cut = rooms.cut}) {}

IncidentManager::~IncidentManager() {
  captures_.Stop();
  removers_.Stop();
  freezer_.Stop();
}

absl::StatusOr<std::unique_ptr<IncidentManager>> IncidentManager::Create(const Rooms& rooms) {
  std::unique_ptr<IncidentManager> manager(new IncidentManager(rooms));
  RETURN_IF_ERROR(manager->table_.Load());
  return manager;
}

std::vector<Incident> IncidentManager::List() const { return table_.List(); }

absl::StatusOr<Incident> IncidentManager::Get(const std::string& id) const {
  return table_.Get(id);
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
      held.merge(SandboxesOf(other));
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
  // One that is being opened has no list yet, or came meanwhile: what it had cut is not to be open.
  for (const Incident& other : List()) {
    if (other.state == IncidentState::kOpen) {
      freezer_.CutAll(other);
    }
  }
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
  // The gate first: from here on no call, opening or connection gets through.
  incident.id = table_.Add(incident);
  // And the ways out, before anything else takes time.
  freezer_.CutAll(incident);
  incident.gate_took = Since(began);
  rooms_.evidence.audit.Keep(IncidentEvent("opening", incident.id, incident.reason, {})
                                 .Text("scope", ScopeText(incident)));
  // Written down before anything is frozen, so that a restart goes on with it.
  absl::Status saved = table_.WriteDown(incident);
  freezer_.FreezeAll(incident, opened.problems);
  incident.freeze_took = Since(began);
  Tell("opened", incident, incident.reason);
  // From here on it can be captured, thawed and torn down.
  if (const absl::Status again = table_.Opened(incident); saved.ok()) {
    saved = again;
  }
  // What stood still for another incident may have gone on while that one ended.
  HoldStill(incident.id, FrozenBefore(incident), opened.problems);
  if (request.stop_gateway) {
    const IncidentConfig& config = rooms_.evidence.config.incident;
    incident.gateway_stop = RunStopCommand(config.stop_gateway, config.stop_timeout);
    Tell("gateway_stopped", incident, incident.gateway_stop);
    const absl::Status again =
        table_
            .Change(incident.id, [&](Incident& kept) { kept.gateway_stop = incident.gateway_stop; })
            .status();
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
  } else if (request.capture) {
    static_cast<void>(captures_.Post([this, id = incident.id] {
      if (const auto bundle = Capture(id); !bundle.ok()) {
        spdlog::error("incident {}: the evidence was not collected: {}", id,
                      Printable(std::string(bundle.status().message()), 512));
      }
    }));
  }
  ASSIGN_OR_RETURN(incident, Get(incident.id));
  return opened;
}

void IncidentManager::HoldStill(const std::string& id, const std::set<std::string>& sandboxes,
                                std::vector<std::string>& problems) {
  const absl::StatusOr<Incident> incident = Get(id);
  if (!incident.ok() || incident->state != IncidentState::kOpen) {
    return;
  }
  for (const std::string& sandbox : SandboxesOf(*incident)) {
    if (!sandboxes.contains(sandbox)) {
      continue;
    }
    const absl::StatusOr<std::optional<std::string>> method =
        freezer_.FreezeAgain(*incident, sandbox);
    if (!method.ok()) {
      problems.emplace_back(method.status().message());
    } else if (method->has_value()) {
      // It is ours now, to let it go on.
      static_cast<void>(table_.Change(id, [&](Incident& kept) {
        for (IncidentSandbox& each : kept.sandboxes) {
          if (each.sandbox_id == sandbox) {
            each.method = **method;
            each.frozen_before = false;
          }
        }
      }));
    }
  }
}

void IncidentManager::Resume() {
  for (Incident incident : List()) {
    if (incident.state != IncidentState::kOpen) {
      continue;
    }
    std::vector<std::string> problems;
    const size_t before = incident.sandboxes.size();
    freezer_.CutAll(incident);
    // Those that it has frozen and that do not stand still any more.
    HoldStill(incident.id, SandboxesOf(incident), problems);
    freezer_.FreezeAll(incident, problems);
    for (const std::string& problem : problems) {
      spdlog::error("incident {}: {}", incident.id, problem);
    }
    if (incident.sandboxes.size() != before) {
      static_cast<void>(table_.Change(incident.id, [&](Incident& kept) {
        kept.sandboxes.insert(kept.sandboxes.end(), incident.sandboxes.begin() + before,
                              incident.sandboxes.end());
      }));
    }
    spdlog::warn("incident {} is still open: {}", incident.id, Printable(incident.reason, 256));
  }
}

absl::StatusOr<IncidentBundle> IncidentManager::Capture(const std::string& asked) {
  ASSIGN_OR_RETURN(Incident incident, table_.GetOpened(asked));
  const IncidentTurns::Turn turn(turns_, IncidentNumber(asked), Work::kCapture,
                                 SandboxesOf(incident));
  // What had its turn before may have changed it.
  ASSIGN_OR_RETURN(incident, Get(asked));
  // As it is named, however it was asked for.
  const std::string& id = incident.id;
  if (incident.state == IncidentState::kTornDown) {
    return CheckOpen(incident);
  }
  ASSIGN_OR_RETURN(const std::string folder, table_.Folder(id));
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
  RETURN_IF_ERROR(
      table_.Change(id, [&](Incident& kept) { kept.bundles.push_back(*bundle); }).status());
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
    static_cast<void>(table_.Change(other.id, [&](Incident& kept) {
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
  ASSIGN_OR_RETURN(Incident incident, table_.GetOpened(id));
  const IncidentTurns::Turn turn(turns_, IncidentNumber(id), Work::kLetGo, SandboxesOf(incident));
  ASSIGN_OR_RETURN(incident, Get(id));
  RETURN_IF_ERROR(CheckOpen(incident));
  Tell("thawing", incident, "");
  std::set<std::string> went_on;
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
    went_on.insert(each.sandbox_id);
  }
  absl::StatusOr<Incident> ended = table_.Change(id, [this](Incident& kept) {
    kept.state = IncidentState::kThawed;
    kept.ended_at = rooms_.evidence.clock.Now();
  });
  Restore(incident);
  // Another that was being opened, and found these standing still, has them stand still itself.
  std::vector<std::string> problems;
  for (const Incident& other : List()) {
    HoldStill(other.id, went_on, problems);
  }
  for (const std::string& problem : problems) {
    spdlog::error("after incident {} was thawed: {}", incident.id, problem);
  }
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
  ASSIGN_OR_RETURN(Incident incident, table_.GetOpened(id));
  const IncidentTurns::Turn turn(turns_, IncidentNumber(id), Work::kRemove, SandboxesOf(incident));
  ASSIGN_OR_RETURN(incident, Get(id));
  RETURN_IF_ERROR(CheckOpen(incident));
  if (incident.bundles.empty() && !without_evidence) {
    return absl::FailedPreconditionError(
        fmt::format("there is no evidence of incident {} yet; collect it first (creel incident "
                    "capture {}), or do without it (--without-evidence)",
                    id, id));
  }
  Tell("tearing_down", incident, "");
  std::vector<absl::Status> results(incident.sandboxes.size());
  AtOnce(
      removers_, results.size(), [&](size_t i) { results[i] = Remove(incident.sandboxes[i]); },
      [&](size_t i) { results[i] = absl::UnavailableError("the supervisor is stopping"); });
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
  absl::StatusOr<Incident> ended = table_.Change(id, [this](Incident& kept) {
    kept.state = IncidentState::kTornDown;
    kept.ended_at = rooms_.evidence.clock.Now();
  });
  Restore(incident);
  Tell("torn_down", incident, "");
  return ended;
}

}  // namespace creel
