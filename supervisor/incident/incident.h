#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/session/hold_rules.h"

namespace creel {

// One sandbox that an incident froze.
struct IncidentSandbox {
  std::string session{};
  std::string sender{};
  std::string sandbox_id{};
  std::string container_id{};
  std::string method{};  // engine, cgroup or killed; empty: `error` says why it did not stand still
  std::string error{};
  bool frozen_before = false;  // by somebody else, who will thaw it
};

struct IncidentBundle {
  std::string path{};
  uint64_t bytes = 0;
  std::string sha256{};
  std::chrono::system_clock::time_point made_at{};
  std::chrono::microseconds took{0};
  uint64_t members = 0;
  std::vector<std::string> left_out{};
  // Known secrets whose value was found in what commands wrote: the secret's name and where.
  std::vector<std::string> seen_secrets{};
};

enum class IncidentState { kOpen, kThawed, kTornDown };

// A freeze with a reason, its evidence and its end.
struct Incident {
  std::string id{};  // "1", "2", …
  HoldRule::Scope scope = HoldRule::Scope::kAll;
  std::string who{};  // the sender, or the session's name
  std::string reason{};
  IncidentState state = IncidentState::kOpen;
  std::chrono::system_clock::time_point opened_at{};
  std::chrono::system_clock::time_point ended_at{};  // while open: not set
  std::chrono::microseconds gate_took{0};
  std::chrono::microseconds freeze_took{0};
  std::vector<IncidentSandbox> sandboxes{};
  std::vector<IncidentBundle> bundles{};
  std::string gateway_stop{};  // what became of the gateway's stop; empty: it was not run

  [[nodiscard]] HoldRule hold() const {
    return {.scope = scope, .who = who, .incident = id, .reason = reason};
  }
};

// `all`, `sender S` or `session K`.
std::string ScopeText(const Incident& incident);
// What a sandbox is told to stand still for.
std::string FreezeReason(const Incident& incident);
// open, thawed, torn_down.
std::string StateText(IncidentState state);

// As it is kept in the store and beside its bundles.
std::string IncidentToJson(const Incident& incident);
// kDataLoss: it is not what IncidentToJson writes.
absl::StatusOr<Incident> IncidentFromJson(const std::string& json);

}  // namespace creel
