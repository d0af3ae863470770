#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/audit/event.h"

namespace creel {

// One function per kind of event, so that the same thing always has the same words. docs/audit.md
// lists the kinds.

// A tool call and what became of it. `number` joins the two within one run of creeld.
struct CallFacts {
  uint64_t number = 0;
  std::string_view session{};
  std::string_view sender{};
  std::string_view tool{};
  std::string_view summary{};
  std::string_view tool_call_id{};
  std::string_view rule{};
  std::string_view trace{};  // the gateway's traceparent
};
AuditEvent CallAllowed(const CallFacts& call);
AuditEvent CallDenied(const CallFacts& call, std::string_view reason);
AuditEvent CallEnded(const CallFacts& call, std::string_view sandbox, std::string_view outcome,
                     std::chrono::microseconds took);

// What a sandbox asked the outside for, or what became of it. `number` joins the two within one run
// of creeld. `path` has its query masked.
struct EgressFacts {
  uint64_t number = 0;
  std::string_view sandbox{};
  std::string_view session{};
  std::string_view level{};
  bool allowed = false;
  std::string_view rule{};
  std::string_view kind{};  // tunnel, http, service or request
  std::string_view method{};
  std::string_view target{};  // host:port
  std::string_view path{};
  std::string_view reason{};  // of a refusal, or why it ended; empty: as it should
};
AuditEvent EgressDecided(const EgressFacts& egress);
AuditEvent EgressEnded(const EgressFacts& egress, int status, uint64_t bytes_up,
                       uint64_t bytes_down, std::chrono::microseconds took);

// A session's sandbox, by what happens to it: `opening`, `opened`, `open_failed`, `closing`,
// `closed`, `freezing`, `frozen`, `thawing`, `thawed`, `adopted`, `lost`, `leftover`.
struct SessionFacts {
  std::string_view session{};
  std::string_view sender{};
  std::string_view sandbox{};
  std::string_view container{};
};
AuditEvent SessionEvent(std::string_view what, const SessionFacts& session,
                        std::string_view reason);

// A connection that broke a bound of the frame guard or was not let in. `door` is a socket's name.
AuditEvent PeerDropped(std::string_view door, const SessionFacts& session, std::string_view reason);

// A command in a sandbox has ended: how, and what it wrote. `sha256` is over all of the output in
// the order in which it came, but for `missed` bytes that did not get here.
struct OutputFacts {
  uint64_t bytes = 0;
  uint64_t missed = 0;
  std::string_view sha256{};
  std::string_view head{};
};
AuditEvent ProcessEnded(const SessionFacts& session, std::string_view process,
                        std::string_view outcome, const OutputFacts& output);

// A credential that Creel adds to requests, by what happens to it: `revoked`, `restored`.
AuditEvent SecretEvent(std::string_view what, std::string_view name);

// The supervisor itself: `started`, `stopping`, `reloaded`.
AuditEvent SupervisorEvent(std::string_view what, std::string_view detail);

// What the operator did at the door, by the uid that the kernel vouches for.
AuditEvent OperatorAct(std::string_view act, std::string_view session, std::string_view detail,
                       std::string_view by);

// An incident, by what happens to it: `opening`, `opened`, `captured`, `thawed`, `torn_down`, …
AuditEvent IncidentEvent(std::string_view what, std::string_view incident, std::string_view reason,
                         const std::vector<std::string>& sessions);

}  // namespace creel
