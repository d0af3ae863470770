#pragma once

#include <functional>
#include <memory>
#include <string>

#include "supervisor/audit/audit_log.h"
#include "supervisor/base/status.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// One tool call as a door decoded it.
struct ToolCall {
  std::string session;
  std::string sender;
  std::string tool;     // exec, read, write, edit, list, stat, …
  std::string summary;  // what a person would want to see of its parameters; bounded to 256 bytes
  std::string tool_call_id;
  std::string trace{};  // the gateway's traceparent (W3C Trace Context); empty: none
  // Of exec; lent until CallGate::Begin has decided, which is before it calls `done`.
  const shim::v1::CommandSpec* command = nullptr;
};

// A call that was let through. It holds the sandbox, is told when that goes away, and records the
// outcome. Destroyed without Finish it records that the caller went away.
class CallTicket {
 public:
  virtual ~CallTicket() = default;
  virtual Sandbox& sandbox() = 0;
  // The shim's stub, from the moment the call began.
  virtual shim::v1::Shim::StubInterface& shim() = 0;
  virtual std::shared_ptr<shim::v1::Shim::StubInterface> shared_shim() = 0;
  // Runs `lost` once if the sandbox goes away, is frozen or closed before Finish; set at most once.
  // May run at once.
  virtual void OnLost(std::function<void(const absl::Status&)> lost) = 0;
  // `outcome` such as "exit 0" or an error's text.
  virtual void Finish(const std::string& outcome) = 0;
};

// The one way of every tool call, from whichever door: decode -> decide -> record -> sandbox ->
// shim -> record -> reply. Doors only translate. What the policy wants the operator asked for is
// held until the operator has answered. Thread-safe.
class CallGate {
 public:
  using OnBegin = std::function<void(absl::StatusOr<std::shared_ptr<CallTicket>>)>;

  // All must outlive it. A call whose decision cannot be written to `audit` is refused.
  // PolicyDesk::approvals().Stop() lets go what is held, and has to come before whoever waits for
  // it goes away.
  static std::unique_ptr<CallGate> Create(SessionManager& sessions, PolicyDesk& desk,
                                          AuditLog& audit);
  virtual ~CallGate() = default;
  // Decides, records the decision, and gets the sandbox (opening the session if need be). `done` is
  // called exactly once, possibly before Begin returns.
  virtual void Begin(ToolCall call, OnBegin done) = 0;
  // Whether the gateway may open a sandbox for this session and sender. A refusal is recorded, and
  // who asked counts for the sandbox all the same. kPermissionDenied tells the rule, and of what
  // the operator was asked.
  virtual absl::Status DecideOpening(const std::string& session, const std::string& sender) = 0;
};

}  // namespace creel
