#include "supervisor/incident/incident_freezer.h"

#include <fmt/format.h>

#include <chrono>
#include <map>
#include <string_view>
#include <utility>

#include "supervisor/audit/audit_query.h"
#include "supervisor/audit/line.h"
#include "supervisor/base/escape.h"
#include "supervisor/incident/at_once.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kFreezeWithin{20};
constexpr size_t kMaxShownSender = 1024;
// Sessions that were being opened when the gate shut come up after the first look.
constexpr int kLooks = 5;

}  // namespace

void IncidentFreezer::Cut(const std::string& sandbox, const Incident& incident) const {
  if (rooms_.cut) {
    rooms_.cut(sandbox, FreezeReason(incident));
  }
}

void IncidentFreezer::CutAll(const Incident& incident) const {
  if (incident.scope == HoldRule::Scope::kAll) {
    Cut("", incident);
  } else if (rooms_.cut) {
    for (const SessionView& view : rooms_.sessions.List()) {
      if (IsMeant(incident, view, {})) {
        Cut(view.identity.id, incident);
      }
    }
  }
  for (const IncidentSandbox& each : incident.sandboxes) {
    Cut(each.sandbox_id, incident);
  }
}

std::set<std::string> IncidentFreezer::ReachedBy(const std::string& sender) const {
  constexpr std::string_view kKey = ",\"sender\":\"";
  std::set<std::string> ids;
  // Few senders stand in many lines, each in few spellings.
  std::map<std::string, bool, std::less<>> same;
  // The record has it as it can be printed, without the values of secrets, and as JSON.
  const std::string shown = Printable(sender, kMaxShownSender);
  const std::string masked = Printable(rooms_.audit.Masked(sender), kMaxShownSender);
  AuditReader reader(rooms_.audit.directory(), {});
  while (true) {
    const absl::StatusOr<std::optional<std::string_view>> line = reader.Next();
    if (!line.ok() || !*line) {
      return ids;
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
      known = same.emplace(spelling, SameSender(sender, value) || SameSender(shown, value) ||
                                         SameSender(masked, value))
                  .first;
    }
    if (!known->second) {
      continue;
    }
    if (std::optional<std::string> id = FieldOf(**line, "sandbox")) {
      ids.insert(*std::move(id));
    }
  }
}

bool IncidentFreezer::IsMeant(const Incident& incident, const SessionView& view,
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

std::vector<IncidentSandbox> IncidentFreezer::FreezeThese(const std::vector<SessionView>& due,
                                                          const Incident& incident) {
  std::vector<IncidentSandbox> results;
  std::vector<size_t> running;
  for (const SessionView& view : due) {
    results.push_back({.session = view.session,
                       .sender = view.sender,
                       .sandbox_id = view.identity.id,
                       .container_id = view.identity.container_id,
                       .method = {},
                       .error = {},
                       .frozen_before = false});
    if (view.state == SessionState::kLost) {
      results.back().method = "lost";
    } else if (view.state == SessionState::kFrozen) {
      // By us, if a restart came in between; else by somebody who will thaw it.
      results.back().frozen_before = !view.reason.starts_with(FreezeReason(incident));
      results.back().method = "before";
    } else {
      running.push_back(results.size() - 1);
    }
  }
  AtOnce(
      threads_, running.size(),
      [&](size_t i) {
        IncidentSandbox& result = results[running[i]];
        Cut(result.sandbox_id, incident);
        absl::StatusOr<std::string> method = rooms_.sessions.FreezeQuickly(
            result.sandbox_id, FreezeReason(incident), After(kFreezeWithin));
        if (method.ok()) {
          result.method = *std::move(method);
        } else {
          result.error = Printable(std::string(method.status().message()), 512);
        }
      },
      [&](size_t i) { results[running[i]].error = "the supervisor is stopping"; });
  return results;
}

void IncidentFreezer::FreezeAll(Incident& incident, std::vector<std::string>& problems) {
  std::set<std::string> seen;
  for (const IncidentSandbox& each : incident.sandboxes) {
    seen.insert(each.sandbox_id);
  }
  std::set<std::string> reached;
  for (int look = 0; look < kLooks; ++look) {
    if (look == 1 && incident.scope == HoldRule::Scope::kSender) {
      // Looked up after the first round, as it may take a moment.
      reached = ReachedBy(incident.who);
    }
    std::vector<SessionView> due;
    for (SessionView& view : rooms_.sessions.List()) {
      if (IsMeant(incident, view, reached) && seen.insert(view.identity.id).second) {
        due.push_back(std::move(view));
      }
    }
    if (due.empty() && look > 0) {
      break;
    }
    for (IncidentSandbox& result : FreezeThese(due, incident)) {
      // One that was being opened has its container by now.
      if (const auto view = rooms_.sessions.Get(result.sandbox_id); view.ok()) {
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

absl::StatusOr<std::optional<std::string>> IncidentFreezer::FreezeAgain(
    const Incident& incident, const std::string& sandbox) const {
  const auto view = rooms_.sessions.Get(sandbox);
  if (!view.ok() || view->state != SessionState::kRunning) {
    return std::nullopt;
  }
  Cut(sandbox, incident);
  ASSIGN_OR_RETURN(std::string method, rooms_.sessions.FreezeQuickly(
                                           sandbox, FreezeReason(incident), After(kFreezeWithin)));
  return method;
}

}  // namespace creel
