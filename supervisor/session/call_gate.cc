#include "supervisor/session/call_gate.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>

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

// The record of a call is written here and nowhere else: the decision before its effect, then the
// outcome.
void RecordDecision(const CallRecord& record, const absl::Status& refused) {
  const ToolCall& call = record.call;
  spdlog::log(
      refused.ok() ? spdlog::level::info : spdlog::level::warn,
      "call {} {} rule={} tool={} session=\"{}\" sender=\"{}\" tool_call_id=\"{}\" "
      "summary=\"{}\"{}",
      record.number, refused.ok() ? "allowed" : "refused", record.rule,
      Printable(call.tool, kMaxTool), Printable(call.session, 512), Printable(call.sender, 512),
      Printable(call.tool_call_id, kMaxToolCallId), Printable(call.summary, kMaxSummary),
      refused.ok()
          ? ""
          : fmt::format(" reason=\"{}\"", Printable(std::string(refused.message()), kMaxOutcome)));
}

void RecordOutcome(const CallRecord& record, std::string_view sandbox_id,
                   std::string_view outcome) {
  spdlog::info(
      "call {} ended sandbox={} ms={:.2f} outcome=\"{}\"", record.number, sandbox_id,
      std::chrono::duration<double, std::milli>(steady_clock::now() - record.began).count(),
      Printable(outcome, kMaxOutcome));
}

class Ticket final : public CallTicket {
 public:
  Ticket(CallRecord record, std::shared_ptr<Sandbox> sandbox,
         std::shared_ptr<shim::v1::Shim::StubInterface> stub)
      : record_(std::move(record)), sandbox_(std::move(sandbox)), stub_(std::move(stub)) {}

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
    RecordOutcome(record_, sandbox_->identity().id, outcome);
  }

 private:
  struct Open {
    Mutex mu;
    bool open ABSL_GUARDED_BY(mu) = true;
    bool told ABSL_GUARDED_BY(mu) = false;
  };

  const CallRecord record_;
  const std::shared_ptr<Sandbox> sandbox_;
  const std::shared_ptr<shim::v1::Shim::StubInterface> stub_;
  const std::shared_ptr<Open> open_ = std::make_shared<Open>();
  std::shared_ptr<void> registration_;
};

class Gate final : public CallGate {
 public:
  Gate(SessionManager& sessions, const Config& config) : sessions_(sessions), config_(config) {}

  void Begin(ToolCall call, OnBegin done) override {
    CallRecord record{.number = next_.fetch_add(1, std::memory_order_relaxed) + 1,
                      .call = std::move(call),
                      .rule = "input",
                      .began = steady_clock::now()};
    const absl::Status refused = Decide(record);
    RecordDecision(record, refused);
    if (!refused.ok()) {
      done(refused);
      return;
    }
    const OpenOptions options{.session = record.call.session, .sender = record.call.sender};
    sessions_.Acquire(options, [record = std::move(record), done = std::move(done)](
                                   absl::StatusOr<std::shared_ptr<Sandbox>> sandbox) mutable {
      absl::StatusOr<std::shared_ptr<shim::v1::Shim::StubInterface>> stub =
          sandbox.ok() ? (*sandbox)->shim() : sandbox.status();
      if (!stub.ok()) {
        RecordOutcome(record, sandbox.ok() ? (*sandbox)->identity().id : "none",
                      std::string(stub.status().message()));
        done(stub.status());
        return;
      }
      done(std::make_shared<Ticket>(std::move(record), *std::move(sandbox), *std::move(stub)));
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
  std::atomic<uint64_t> next_{0};
};

}  // namespace

std::unique_ptr<CallGate> CallGate::Create(SessionManager& sessions, const Config& config) {
  return std::make_unique<Gate>(sessions, config);
}

}  // namespace creel
