#include "supervisor/session/call_gate.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>

#include "supervisor/audit/events.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/mutex.h"
#include "supervisor/session/placement.h"

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
};

CallFacts FactsOf(const CallRecord& record) {
  return {.number = record.number,
          .session = record.call.session,
          .sender = record.call.sender,
          .tool = record.call.tool,
          .summary = record.call.summary,
          .tool_call_id = record.call.tool_call_id,
          .rule = record.rule};
}

// The record of a call is written here and nowhere else: the decision before its effect, then the
// outcome. What cannot be written is refused.
absl::Status RecordDecision(AuditLog& audit, const CallRecord& record,
                            const absl::Status& refused) {
  if (refused.ok()) {
    return audit.Append(CallAllowed(FactsOf(record)));
  }
  audit.Keep(CallDenied(FactsOf(record), std::string(refused.message())));
  spdlog::debug("call {} refused by {}: {}", record.number, record.rule,
                Printable(std::string(refused.message()), kMaxOutcome));
  return refused;
}

void RecordOutcome(AuditLog& audit, const CallRecord& record, std::string_view sandbox_id,
                   std::string_view outcome) {
  audit.Keep(CallEnded(
      FactsOf(record), sandbox_id, outcome,
      std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - record.began)));
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
  Gate(SessionManager& sessions, const Config& config, AuditLog& audit)
      : sessions_(sessions), config_(config), audit_(audit), next_(audit.head().seq) {}

  void Begin(ToolCall call, OnBegin done) override {
    CallRecord record{.number = next_.fetch_add(1, std::memory_order_relaxed) + 1,
                      .call = std::move(call),
                      .rule = "input",
                      .began = steady_clock::now()};
    const absl::Status refused = RecordDecision(audit_, record, Decide(record));
    if (!refused.ok()) {
      done(refused);
      return;
    }
    const OpenOptions options{.session = record.call.session, .sender = record.call.sender};
    sessions_.Acquire(
        options, [&audit = audit_, record = std::move(record), done = std::move(done)](
                     absl::StatusOr<std::shared_ptr<Sandbox>> sandbox) mutable {
          absl::StatusOr<std::shared_ptr<shim::v1::Shim::StubInterface>> stub =
              sandbox.ok() ? (*sandbox)->shim() : sandbox.status();
          if (!stub.ok()) {
            RecordOutcome(audit, record, sandbox.ok() ? (*sandbox)->identity().id : "none",
                          std::string(stub.status().message()));
            done(stub.status());
            return;
          }
          done(std::make_shared<Ticket>(audit, std::move(record), *std::move(sandbox),
                                        *std::move(stub)));
        });
  }

 private:
  // Every question that a call must pass is asked here.
  absl::Status Decide(CallRecord& record) const {
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
    Placement placement = Place(config_.sandbox, call.session);
    record.rule = std::move(placement.rule);
    return placement.sandboxed
               ? absl::OkStatus()
               : RunsOnHost({.sandboxed = false, .rule = record.rule, .sandbox_name = {}},
                            call.session);
  }

  SessionManager& sessions_;
  const Config& config_;
  AuditLog& audit_;
  // Begins above all numbers that the record has, as each call has a line of its own.
  std::atomic<uint64_t> next_;
};

}  // namespace

std::unique_ptr<CallGate> CallGate::Create(SessionManager& sessions, const Config& config,
                                           AuditLog& audit) {
  return std::make_unique<Gate>(sessions, config, audit);
}

}  // namespace creel
