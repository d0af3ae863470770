#include "supervisor/incident/incident.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace creel {
namespace {

using nlohmann::json;
using std::chrono::microseconds;
using std::chrono::system_clock;

int64_t Micros(system_clock::time_point at) {
  return std::chrono::duration_cast<microseconds>(at.time_since_epoch()).count();
}

system_clock::time_point At(const json& object, const char* key) {
  return system_clock::time_point(microseconds(object.value(key, int64_t{0})));
}

std::string ScopeName(HoldRule::Scope scope) {
  switch (scope) {
    case HoldRule::Scope::kAll:
      return "all";
    case HoldRule::Scope::kSender:
      return "sender";
    case HoldRule::Scope::kSession:
      return "session";
  }
  return "all";
}

}  // namespace

std::string ScopeText(const Incident& incident) {
  return incident.scope == HoldRule::Scope::kAll
             ? "all"
             : fmt::format("{} {}", ScopeName(incident.scope), incident.who);
}

std::string FreezeReason(const Incident& incident) {
  return fmt::format("incident {}: {}", incident.id, incident.reason);
}

std::string StateText(IncidentState state) {
  switch (state) {
    case IncidentState::kOpen:
      return "open";
    case IncidentState::kThawed:
      return "thawed";
    case IncidentState::kTornDown:
      return "torn_down";
  }
  return "open";
}

std::string IncidentToJson(const Incident& incident) {
  json sandboxes = json::array();
  for (const IncidentSandbox& each : incident.sandboxes) {
    sandboxes.push_back({{"session", each.session},
                         {"sender", each.sender},
                         {"sandbox_id", each.sandbox_id},
                         {"container_id", each.container_id},
                         {"method", each.method},
                         {"error", each.error},
                         {"frozen_before", each.frozen_before}});
  }
  json bundles = json::array();
  for (const IncidentBundle& each : incident.bundles) {
    bundles.push_back({{"path", each.path},
                       {"bytes", each.bytes},
                       {"sha256", each.sha256},
                       {"made_at", Micros(each.made_at)},
                       {"took", each.took.count()},
                       {"members", each.members},
                       {"left_out", each.left_out},
                       {"seen_secrets", each.seen_secrets}});
  }
  const json all{{"id", incident.id},
                 {"scope", ScopeName(incident.scope)},
                 {"who", incident.who},
                 {"reason", incident.reason},
                 {"state", StateText(incident.state)},
                 {"opened_at", Micros(incident.opened_at)},
                 {"ended_at", Micros(incident.ended_at)},
                 {"gate_took", incident.gate_took.count()},
                 {"freeze_took", incident.freeze_took.count()},
                 {"sandboxes", sandboxes},
                 {"bundles", bundles},
                 {"gateway_stop", incident.gateway_stop}};
  return all.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Incident> IncidentFromJson(const std::string& text) {
  try {
    const json all = json::parse(text);
    Incident incident;
    incident.id = all.at("id");
    const std::string scope = all.at("scope");
    incident.scope = scope == "session"  ? HoldRule::Scope::kSession
                     : scope == "sender" ? HoldRule::Scope::kSender
                                         : HoldRule::Scope::kAll;
    incident.who = all.at("who");
    incident.reason = all.at("reason");
    const std::string state = all.at("state");
    incident.state = state == "thawed"      ? IncidentState::kThawed
                     : state == "torn_down" ? IncidentState::kTornDown
                                            : IncidentState::kOpen;
    incident.opened_at = At(all, "opened_at");
    incident.ended_at = At(all, "ended_at");
    incident.gate_took = microseconds(all.value("gate_took", int64_t{0}));
    incident.freeze_took = microseconds(all.value("freeze_took", int64_t{0}));
    incident.gateway_stop = all.value("gateway_stop", "");
    for (const json& each : all.at("sandboxes")) {
      incident.sandboxes.push_back({.session = each.at("session"),
                                    .sender = each.at("sender"),
                                    .sandbox_id = each.at("sandbox_id"),
                                    .container_id = each.at("container_id"),
                                    .method = each.at("method"),
                                    .error = each.at("error"),
                                    .frozen_before = each.value("frozen_before", false)});
    }
    for (const json& each : all.at("bundles")) {
      incident.bundles.push_back(
          {.path = each.at("path"),
           .bytes = each.at("bytes"),
           .sha256 = each.at("sha256"),
           .made_at = At(each, "made_at"),
           .took = microseconds(each.value("took", int64_t{0})),
           .members = each.at("members"),
           .left_out = each.at("left_out"),
           .seen_secrets = each.value("seen_secrets", std::vector<std::string>())});
    }
    return incident;
  } catch (const json::exception& e) {
    return absl::DataLossError(fmt::format("an incident cannot be read: {}", e.what()));
  }
}

}  // namespace creel
