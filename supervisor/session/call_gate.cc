#include "supervisor/session/call_gate.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>

#include "supervisor/audit/events.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/mutex.h"
#include "supervisor/policy/placement.h"
#include "supervisor/policy/tools.h"
#include "supervisor/session/approved_command.h"

namespace creel {
namespace {

using std::chrono::steady_clock;

constexpr size_t kMaxTool = 64;
constexpr size_t kMaxSummary = 256;
constexpr size_t kMaxToolCallId = 128;
constexpr size_t kMaxOutcome = 512;

// What a call is known by, from its decision to its outcome.
struct CallRecord {
  uint64_t number = 0;
  ToolCall call;
  std::string rule;
  steady_clock::time_point began;
  bool answered = false;  // the operator was asked, or had allowed it
};

CallFacts FactsOf(const CallRecord& record) {
  return {.number = record.number,
          .session = record.call.session,
          .sender = record.call.sender,
          .tool = record.call.tool,
          .summary = record.call.summary,
          .tool_call_id = record.call.tool_call_id,
          .rule = record.rule,
          .trace = record.call.trace};
}

// ` trace=… span=…` of a traceparent, for the log; empty without one.
std::string TraceText(const std::string& traceparent) {
  constexpr size_t kLength = 55;
  return traceparent.size() != kLength ? std::string()
                                       : fmt::format(" trace={} span={}", traceparent.substr(3, 32),
                                                     traceparent.substr(36, 16));
}

// The gateway wants to follow this one: the lowest bit of the flags, the last hexadecimal digit.
bool IsSampled(const std::string& traceparent) {
  if (traceparent.empty()) {
    return false;
  }
  const char digit = traceparent.back();
  return (digit <= '9' ? digit - '0' : digit - 'a' + 10) % 2 == 1;
}

// The record of a call is written here and nowhere else: the decision before its effect, then the
// outcome. What cannot be written is refused.
absl::Status RecordDecision(AuditLog& audit, const CallRecord& record,
                            const absl::Status& refused) {
  if (refused.ok()) {
    RETURN_IF_ERROR(audit.Append(CallAllowed(FactsOf(record))));
    if (IsSampled(record.call.trace)) {
      spdlog::info("call {} allowed, tool={} session=\"{}\"{}", record.number,
                   Printable(record.call.tool, kMaxTool), Printable(record.call.session, 512),
                   TraceText(record.call.trace));
    }
    return absl::OkStatus();
  }
  audit.Keep(CallDenied(FactsOf(record), std::string(refused.message())));
  spdlog::debug("call {} refused by {}: {}{}", record.number, record.rule,
                Printable(std::string(refused.message()), kMaxOutcome),
                TraceText(record.call.trace));
  return refused;
}

// The operator is being asked; the decision follows.
void RecordHeld(const CallRecord& record, const std::string& approval_id) {
  spdlog::warn(
      "call {} held for the operator, approval={} rule={} tool={} session=\"{}\" sender=\"{}\" "
      "summary=\"{}\"{}",
      record.number, approval_id, record.rule, Printable(record.call.tool, kMaxTool),
      Printable(record.call.session, 512), Printable(record.call.sender, 512),
      Printable(record.call.summary, kMaxSummary), TraceText(record.call.trace));
}

void RecordOutcome(AuditLog& audit, const CallRecord& record, std::string_view sandbox_id,
                   std::string_view outcome) {
  audit.Keep(CallEnded(
      FactsOf(record), sandbox_id, outcome,
      std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - record.began)));
  if (IsSampled(record.call.trace)) {
    spdlog::info("call {} ended: {}{}", record.number, Printable(outcome, kMaxOutcome),
                 TraceText(record.call.trace));
  }
}

class Ticket final : public CallTicket {
 public:
  Ticket(AuditLog& audit, CallRecord record, std::shared_ptr<Sandbox> sandbox,
         std::shared_ptr<shim::v1::Shim::StubInterface> stub)
      : audit_(audit),
        record_(std::move(record)),
        sandbox_(std::move(sandbox)),
        stub_(std::move(stub)) {}

  ~Ticket() override {
    registration_.reset();
    Finish("the caller went away");
  }

  Sandbox& sandbox() override { return *sandbox_; }
  shim::v1::Shim::StubInterface& shim() override { return *stub_; }
  std::shared_ptr<shim::v1::Shim::StubInterface> shared_shim() override { return stub_; }

  void OnLost(std::function<void(const absl::Status&)> lost) override {
    {
      MutexLock hold(open_->mu);
      if (!open_->open) {
        return;
      }
    }
    // The callback may run before OnLost returns, and after this ticket is gone: it holds what it
    // needs.
    registration_ =
        sandbox_->OnLost([open = open_, lost = std::move(lost)](const absl::Status& why) {
          {
            MutexLock hold(open->mu);
            if (!open->open || open->told) {
              return;
            }
            open->told = true;
          }
          lost(why);
        });
  }

  void Finish(const std::string& outcome) override {
    {
      MutexLock hold(open_->mu);
      if (!open_->open) {
        return;
      }
      open_->open = false;
    }
    RecordOutcome(audit_, record_, sandbox_->identity().id, outcome);
  }

 private:
  struct Open {
    Mutex mu;
    bool open ABSL_GUARDED_BY(mu) = true;
    bool told ABSL_GUARDED_BY(mu) = false;
  };

  AuditLog& audit_;
  const CallRecord record_;
  const std::shared_ptr<Sandbox> sandbox_;
  const std::shared_ptr<shim::v1::Shim::StubInterface> stub_;
  const std::shared_ptr<Open> open_ = std::make_shared<Open>();
  std::shared_ptr<void> registration_;
};

class Gate final : public CallGate {
 public:
  Gate(SessionManager& sessions, PolicyDesk& desk, AuditLog& audit)
      : sessions_(sessions), desk_(desk), audit_(audit), next_(audit.head().seq) {}

  void Begin(ToolCall call, OnBegin done) override {
    CallRecord record{.number = next_.fetch_add(1, std::memory_order_relaxed) + 1,
                      .call = std::move(call),
                      .rule = "input",
                      .began = steady_clock::now()};
    bool ask = false;
    absl::Status refused = Decide(record, ask);
    if (refused.ok() && ask) {
      Hold(std::move(record), std::move(done));
      return;
    }
    record.call.command = nullptr;
    refused = RecordDecision(audit_, record, refused);
    if (!refused.ok()) {
      done(refused);
      return;
    }
    Proceed(std::move(record), std::move(done));
  }

  absl::Status DecideOpening(const std::string& session, const std::string& sender) override {
    RETURN_IF_ERROR(CheckSessionKey(session));
    RETURN_IF_ERROR(CheckSender(sender));
    CallRecord record{.number = next_.fetch_add(1, std::memory_order_relaxed) + 1,
                      .call = {.session = session,
                               .sender = sender,
                               .tool = "open",
                               .summary = "a sandbox",
                               .tool_call_id = {}},
                      .rule = "input",
                      .began = steady_clock::now()};
    ASSIGN_OR_RETURN(const AuthorizeAnswer answer, desk_.BeginOpening(QuestionOf(record.call)));
    record.rule = answer.call.decision.rule;
    if (answer.call.decision.verdict == Verdict::kAllow) {
      return absl::OkStatus();  // the opening is recorded by itself
    }
    if (!answer.approval_id.empty()) {
      RecordHeld(record, answer.approval_id);
    }
    return RecordDecision(audit_, record,
                          absl::PermissionDeniedError(
                              fmt::format("{}: {}", record.rule, answer.call.decision.reason)));
  }

 private:
  // Every question that a call must pass is asked here. `ask`: the operator is to be asked first.
  absl::Status Decide(CallRecord& record, bool& ask) {
    const ToolCall& call = record.call;
    RETURN_IF_ERROR(CheckSessionKey(call.session));
    RETURN_IF_ERROR(CheckSender(call.sender));
    if (call.tool.empty() || call.tool.size() > kMaxTool) {
      return absl::InvalidArgumentError(fmt::format("a tool's name has 1 to {} bytes", kMaxTool));
    }
    if (call.tool_call_id.size() > kMaxToolCallId) {
      return absl::InvalidArgumentError(
          fmt::format("tool_call_id is longer than {} bytes", kMaxToolCallId));
    }
    ASSIGN_OR_RETURN(const CallAnswer answer, desk_.BeginCall(QuestionOf(call)));
    record.rule = answer.decision.rule;
    RETURN_IF_ERROR(AsStatus(answer.decision));
    const Placement placement = Place(desk_.config()->sandbox, call.session);
    if (!placement.sandboxed && answer.decision.required == ToolPlace::kSandbox) {
      record.rule = "placement.level";
      return absl::PermissionDeniedError(fmt::format(
          "placement.level: session '{}' runs on the host, which level {} may not use; give others "
          "sessions of their own (session.dmScope: per-channel-peer)",
          Printable(call.session, 120), answer.level));
    }
    if (!placement.sandboxed) {
      record.rule = placement.rule;
      return RunsOnHost(placement, call.session);
    }
    record.answered = answer.decision.verdict == Verdict::kAsk;
    ask = record.answered &&
          !desk_.approvals().Granted(
              {.session = call.session,
               .sender = ParseSender(call.sender).text(),
               .tool_call_id = call.tool_call_id,
               .tool = call.tool,
               .line = call.command == nullptr ? std::string_view() : ShellLine(*call.command)});
    return absl::OkStatus();
  }

  // Waits for the operator.
  void Hold(CallRecord record, OnBegin done) {
    const shim::v1::CommandSpec* const command = record.call.command;
    const std::string shown =
        command == nullptr ? record.call.summary : CommandForOperator(*command);
    Sha256 digest;
    digest.Update(shown);
    const absl::StatusOr<ApprovalRecord> asked = desk_.approvals().Ask(
        // Each call is one question: two that look alike in the summary may differ in the rest.
        {.session = record.call.session,
         .sender = record.call.sender,
         .tool = record.call.tool,
         .parameters_sha256 = command == nullptr ? Hex(digest.Finish()) : CommandSha256(*command),
         .tool_call_id = fmt::format("{}#{}", record.call.tool_call_id, record.number)},
        desk_.Judge(QuestionOf(record.call)).level, record.rule, shown,
        desk_.config()->policy.approval_timeout);
    if (!asked.ok()) {
      static_cast<void>(RecordDecision(audit_, record, asked.status()));
      done(asked.status());
      return;
    }
    RecordHeld(record, asked->id);
    record.call.command = nullptr;
    desk_.approvals().Wait(asked->id, [this, record = std::move(record),
                                       done = std::move(done)](ApprovalAnswer answer) mutable {
      absl::Status refused;
      if (answer != ApprovalAnswer::kAllowed) {
        refused = absl::PermissionDeniedError(
            fmt::format("{}: {}", record.rule,
                        answer == ApprovalAnswer::kDenied ? "the operator refused this call"
                                                          : "the operator did not answer in time"));
      }
      refused = RecordDecision(audit_, record, refused);
      if (!refused.ok()) {
        done(refused);
        return;
      }
      Proceed(std::move(record), std::move(done));
    });
  }

  void Proceed(CallRecord record, OnBegin done) {
    const OpenOptions options{.session = record.call.session, .sender = record.call.sender};
    sessions_.Acquire(options, [this, record = std::move(record), done = std::move(done)](
                                   absl::StatusOr<std::shared_ptr<Sandbox>> sandbox) mutable {
      absl::StatusOr<std::shared_ptr<shim::v1::Shim::StubInterface>> stub =
          sandbox.ok() ? (*sandbox)->shim() : sandbox.status();
      if (stub.ok()) {
        // While the sandbox was being opened, read-only mode may have been switched on, or the
        // level that this call brought may have gone with the sandbox before.
        if (const absl::Status still = StillAllowed(record); !still.ok()) {
          stub = still;
        }
      }
      if (!stub.ok()) {
        RecordOutcome(audit_, record, sandbox.ok() ? (*sandbox)->identity().id : "none",
                      std::string(stub.status().message()));
        done(stub.status());
        return;
      }
      done(std::make_shared<Ticket>(audit_, std::move(record), *std::move(sandbox),
                                    *std::move(stub)));
    });
  }

  [[nodiscard]] absl::Status StillAllowed(const CallRecord& record) {
    ASSIGN_OR_RETURN(const CallAnswer answer, desk_.BeginCall(QuestionOf(record.call)));
    if (answer.decision.verdict == Verdict::kAsk && !record.answered) {
      return absl::PermissionDeniedError(
          fmt::format("{}: the operator is to be asked since somebody of level {} has reached this "
                      "sandbox; make the call again",
                      answer.decision.rule, answer.level));
    }
    return AsStatus(answer.decision);
  }

  static CallQuestion QuestionOf(const ToolCall& call) {
    return {.session = call.session,
            .sender = ParseSender(call.sender),
            .tool = call.tool,
            .claimed_group = {},
            .place = ToolPlace::kSandbox};
  }

  static absl::Status AsStatus(const ToolDecision& decision) {
    return decision.verdict == Verdict::kDeny
               ? absl::PermissionDeniedError(fmt::format("{}: {}", decision.rule, decision.reason))
               : absl::OkStatus();
  }

  SessionManager& sessions_;
  PolicyDesk& desk_;
  AuditLog& audit_;
  // Begins above all numbers that the record has, as each call has a line of its own.
  std::atomic<uint64_t> next_;
};

}  // namespace

std::unique_ptr<CallGate> CallGate::Create(SessionManager& sessions, PolicyDesk& desk,
                                           AuditLog& audit) {
  return std::make_unique<Gate>(sessions, desk, audit);
}

}  // namespace creel
