#include "supervisor/audit/events.h"

#include <fmt/format.h>

namespace creel {
namespace {

AuditEvent Call(const char* kind, const CallFacts& call) {
  AuditEvent event(kind);
  event.Number("call", static_cast<int64_t>(call.number))
      .Text("session", call.session)
      .Text("sender", call.sender)
      .Text("tool", call.tool, 64)
      .Text("trace", call.trace, 64);
  return event;
}

AuditEvent Decision(const char* kind, const char* verdict, const CallFacts& call) {
  AuditEvent event = Call(kind, call);
  event.Text("verdict", verdict)
      .Text("rule", call.rule, 128)
      .Text("summary", call.summary, 256)
      .Text("tool_call_id", call.tool_call_id, 128);
  return event;
}

AuditEvent Egress(const char* kind, const EgressFacts& egress) {
  AuditEvent event(kind);
  event.Number("egress", static_cast<int64_t>(egress.number))
      .Text("sandbox", egress.sandbox)
      .Text("session", egress.session)
      .Text("level", egress.level, 128)
      .Text("verdict", egress.allowed ? "allow" : "deny")
      .Text("rule", egress.rule, 256)
      .Text("kind", egress.kind)
      .Text("method", egress.method, 64)
      .Text("target", egress.target, 320)
      .Text("path", egress.path)
      .Text("reason", egress.reason);
  return event;
}

}  // namespace

AuditEvent EgressDecided(const EgressFacts& egress) {
  return Egress(egress.allowed ? "egress.allowed" : "egress.denied", egress);
}

AuditEvent EgressEnded(const EgressFacts& egress, int status, uint64_t bytes_up,
                       uint64_t bytes_down, std::chrono::microseconds took) {
  return Egress("egress.ended", egress)
      .Number("status", status)
      .Number("bytes_up", static_cast<int64_t>(bytes_up))
      .Number("bytes_down", static_cast<int64_t>(bytes_down))
      .Number("us", took.count());
}

AuditEvent CallAllowed(const CallFacts& call) { return Decision("call.allowed", "allow", call); }

AuditEvent CallDenied(const CallFacts& call, std::string_view reason) {
  return Decision("call.denied", "deny", call).Text("reason", reason);
}

AuditEvent CallEnded(const CallFacts& call, std::string_view sandbox, std::string_view outcome,
                     std::chrono::microseconds took) {
  return Call("call.ended", call)
      .Text("sandbox", sandbox)
      .Text("outcome", outcome)
      .Number("us", took.count());
}

AuditEvent SessionEvent(std::string_view what, const SessionFacts& session,
                        std::string_view reason) {
  return AuditEvent(fmt::format("session.{}", what))
      .Text("session", session.session)
      .Text("sender", session.sender)
      .Text("sandbox", session.sandbox)
      .Text("container", session.container)
      .Text("reason", reason, 1024);
}

AuditEvent PeerDropped(std::string_view door, const SessionFacts& session,
                       std::string_view reason) {
  return AuditEvent("peer.dropped")
      .Text("door", door)
      .Text("session", session.session)
      .Text("sandbox", session.sandbox)
      .Text("reason", reason);
}

AuditEvent ProcessEnded(const SessionFacts& session, std::string_view process,
                        std::string_view outcome, const OutputFacts& output) {
  AuditEvent event("process.ended");
  event.Text("session", session.session)
      .Text("sender", session.sender)
      .Text("sandbox", session.sandbox)
      .Text("process", process, 128)
      .Text("outcome", outcome)
      .Number("bytes", static_cast<int64_t>(output.bytes));
  if (output.missed > 0) {
    event.Number("missed", static_cast<int64_t>(output.missed));
  }
  return event.Text("sha256", output.sha256, 64).Text("head", output.head, 256);
}

AuditEvent SecretEvent(std::string_view what, std::string_view name) {
  return AuditEvent(fmt::format("secret.{}", what)).Text("name", name, 128);
}

AuditEvent SupervisorEvent(std::string_view what, std::string_view detail) {
  return AuditEvent(fmt::format("supervisor.{}", what)).Text("detail", detail);
}

AuditEvent OperatorAct(std::string_view act, std::string_view session, std::string_view detail,
                       std::string_view by) {
  return AuditEvent("operator.act")
      .Text("act", act)
      .Text("session", session)
      .Text("detail", detail, 1024)
      .Text("by", by);
}

AuditEvent IncidentEvent(std::string_view what, std::string_view incident, std::string_view reason,
                         const std::vector<std::string>& sessions) {
  AuditEvent event(fmt::format("incident.{}", what));
  event.Text("incident", incident).Text("reason", reason, 1024);
  if (!sessions.empty()) {
    event.List("sessions", sessions);
  }
  return event;
}

}  // namespace creel
