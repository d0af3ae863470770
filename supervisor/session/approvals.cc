#include "supervisor/session/approvals.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/policy/tools.h"

namespace creel {
namespace {

constexpr size_t kMaxPending = 100;
// Callers bound what they show; nothing of what they say of the rest is to be lost here.
constexpr size_t kMaxSummary = 8192;
constexpr size_t kMaxKept = 1000;
constexpr std::chrono::hours kKept{24};
constexpr std::chrono::minutes kGrantLasts{2};
constexpr int kGrantUses = 16;
constexpr std::chrono::milliseconds kTick{500};

bool Fits(const ApprovalRecord& record, const ApprovalSubject& subject) {
  return record.session == subject.session && record.sender == subject.sender &&
         record.tool == subject.tool && record.tool_call_id == subject.tool_call_id &&
         record.parameters_sha256 == subject.parameters_sha256;
}

ApprovalAnswer AnswerOf(const std::string& state) {
  return state == "pending"   ? ApprovalAnswer::kPending
         : state == "allowed" ? ApprovalAnswer::kAllowed
         : state == "expired" ? ApprovalAnswer::kExpired
                              : ApprovalAnswer::kDenied;
}

// Whether a tool that was approved does its work with this call.
bool Serves(const ApprovalSubject& approved, const GrantedCall& call) {
  const ToolFacts tool = DescribeTool(approved.tool);
  const ToolFacts verb = DescribeTool(call.tool);
  if (verb.name == "exec") {
    return tool.name == "exec" && !approved.line.empty() && approved.line == call.line;
  }
  if (tool.name == "exec") {
    return verb.name == "stat";
  }
  const bool on_programs =
      std::find(verb.groups.begin(), verb.groups.end(), "group:runtime") != verb.groups.end();
  switch (tool.effect) {
    case ToolEffect::kShell:
      return on_programs;
    case ToolEffect::kWrites:
      return !on_programs &&
             (verb.effect == ToolEffect::kReads || verb.effect == ToolEffect::kWrites);
    case ToolEffect::kReads:
    case ToolEffect::kSends:
    case ToolEffect::kUnknown:
      break;
  }
  return !on_programs && verb.effect == ToolEffect::kReads;
}

}  // namespace

Approvals::Approvals(PolicyStore& store, const Clock& clock) : store_(store), clock_(clock) {}

absl::StatusOr<std::unique_ptr<Approvals>> Approvals::Load(PolicyStore& store, const Clock& clock) {
  std::unique_ptr<Approvals> approvals(new Approvals(store, clock));
  ASSIGN_OR_RETURN(const std::vector<ApprovalRecord> records, store.Approvals());
  {
    MutexLock hold(approvals->mu_);
    for (const ApprovalRecord& record : records) {
      approvals->records_.emplace(record.id, record);
    }
  }
  approvals->timer_ = std::thread([self = approvals.get()] { self->ExpireOnTime(); });
  return approvals;
}

Approvals::~Approvals() { Stop(); }

void Approvals::Stop() {
  std::multimap<std::string, std::function<void(ApprovalAnswer)>> waiting;
  {
    MutexLock hold(mu_);
    stopping_ = true;
    waiting.swap(waiting_);
    changed_.SignalAll();
  }
  if (timer_.joinable()) {
    timer_.join();
  }
  for (const auto& [id, done] : waiting) {
    done(ApprovalAnswer::kExpired);
  }
}

absl::StatusOr<ApprovalRecord> Approvals::Ask(const ApprovalSubject& subject,
                                              const std::string& level, const std::string& rule,
                                              const std::string& summary,
                                              std::chrono::seconds timeout) {
  MutexLock hold(mu_);
  size_t pending = 0;
  const auto now = clock_.Now();
  for (const auto& [id, record] : records_) {
    if (record.state != "pending" || record.expires_at <= now) {
      continue;
    }
    if (Fits(record, subject)) {
      return record;
    }
    ++pending;
  }
  if (pending >= kMaxPending) {
    return absl::ResourceExhaustedError(
        fmt::format("{} calls wait for the operator already (creel approvals list)", pending));
  }
  ApprovalRecord record{.id = Hex(RandomBytes(6)),
                        .session = subject.session,
                        .sender = subject.sender,
                        .level = level,
                        .tool = subject.tool,
                        .tool_call_id = subject.tool_call_id,
                        .rule = rule,
                        .summary = Printable(summary, kMaxSummary),
                        .parameters_sha256 = subject.parameters_sha256,
                        .state = "pending",
                        .created_at = now,
                        .expires_at = now + timeout};
  RETURN_IF_ERROR(Annotate(store_.Put(record), "write the approval down"));
  records_[record.id] = record;
  changed_.SignalAll();
  return record;
}

absl::StatusOr<ApprovalAnswer> Approvals::Use(const std::string& id,
                                              const ApprovalSubject& subject) {
  MutexLock hold(mu_);
  const auto found = records_.find(id);
  if (found == records_.end() || !Fits(found->second, subject)) {
    return ApprovalAnswer::kOther;
  }
  ApprovalRecord record = found->second;
  if (record.state == "pending" && record.expires_at <= clock_.Now()) {
    return ApprovalAnswer::kExpired;
  }
  const ApprovalAnswer answer = AnswerOf(record.state);
  if (answer == ApprovalAnswer::kAllowed) {
    // Written before it counts: an approval that is used twice is none.
    record.state = "used";
    RETURN_IF_ERROR(Annotate(store_.Put(record), "write the approval down"));
    found->second = record;
    const bool again = std::any_of(records_.begin(), records_.end(), [&](const auto& each) {
      return each.first != id && each.second.state == "used" &&
             each.second.session == subject.session &&
             each.second.tool_call_id == subject.tool_call_id;
    });
    if (!subject.tool_call_id.empty() && !again) {
      grants_.push_back(
          {.subject = subject, .until = clock_.Steady() + kGrantLasts, .uses = kGrantUses});
    }
  }
  return answer;
}

absl::StatusOr<bool> Approvals::UseAny(const ApprovalSubject& subject) {
  std::string id;
  {
    MutexLock hold(mu_);
    const auto found = std::find_if(records_.begin(), records_.end(), [&](const auto& each) {
      return each.second.state == "allowed" && Fits(each.second, subject);
    });
    if (found == records_.end()) {
      return false;
    }
    id = found->first;
  }
  ASSIGN_OR_RETURN(const ApprovalAnswer answer, Use(id, subject));
  return answer == ApprovalAnswer::kAllowed;
}

bool Approvals::Granted(const GrantedCall& call) {
  if (call.tool_call_id.empty()) {
    return false;
  }
  MutexLock hold(mu_);
  const auto now = clock_.Steady();
  std::erase_if(grants_, [&](const Grant& grant) { return grant.until <= now || grant.uses <= 0; });
  for (Grant& grant : grants_) {
    // Where nobody was named to the gateway, its adapter names the session's peer.
    const bool same_sender = grant.subject.sender.empty() || grant.subject.sender == call.sender;
    if (grant.subject.session == call.session && same_sender &&
        grant.subject.tool_call_id == call.tool_call_id && Serves(grant.subject, call)) {
      grant.uses = DescribeTool(call.tool).effect == ToolEffect::kShell ? 0 : grant.uses - 1;
      return true;
    }
  }
  return false;
}

void Approvals::Wait(const std::string& id, std::function<void(ApprovalAnswer)> done) {
  ApprovalAnswer answer = ApprovalAnswer::kOther;
  {
    MutexLock hold(mu_);
    const auto found = records_.find(id);
    if (found != records_.end()) {
      answer = AnswerOf(found->second.state);
    }
    if (answer == ApprovalAnswer::kPending && stopping_) {
      answer = ApprovalAnswer::kExpired;
    }
    if (answer == ApprovalAnswer::kPending) {
      waiting_.emplace(id, std::move(done));
      return;
    }
  }
  done(answer);
}

absl::StatusOr<ApprovalRecord> Approvals::Answer(const std::string& id, bool allow) {
  std::vector<std::function<void(ApprovalAnswer)>> told;
  ApprovalRecord record;
  {
    MutexLock hold(mu_);
    const auto found = records_.find(id);
    if (found == records_.end()) {
      return absl::NotFoundError(fmt::format(
          "nothing is asked under '{}'; creel approvals list shows what is", Printable(id, 40)));
    }
    record = found->second;
    if (record.state == "pending" && record.expires_at <= clock_.Now()) {
      return absl::FailedPreconditionError(
          fmt::format("'{}' has expired; the call was denied", Printable(id, 40)));
    }
    if (record.state != "pending") {
      return absl::FailedPreconditionError(
          fmt::format("'{}' is {} already", Printable(id, 40), record.state));
    }
    const auto [first, last] = waiting_.equal_range(id);
    // A call that waits here goes on at once, which is its one use.
    record.state = !allow ? "denied" : first != last ? "used" : "allowed";
    RETURN_IF_ERROR(Annotate(store_.Put(record), "write the answer down"));
    found->second = record;
    for (auto waiting = first; waiting != last; ++waiting) {
      told.push_back(std::move(waiting->second));
    }
    waiting_.erase(first, last);
  }
  bool first = true;
  for (const auto& done : told) {
    done(!allow  ? ApprovalAnswer::kDenied
         : first ? ApprovalAnswer::kAllowed
                 : ApprovalAnswer::kOther);
    first = false;
  }
  return record;
}

std::vector<ApprovalRecord> Approvals::List() {
  MutexLock hold(mu_);
  std::vector<ApprovalRecord> list;
  const auto now = clock_.Now();
  for (const auto& [id, record] : records_) {
    list.push_back(record);
    if (record.state == "pending" && record.expires_at <= now) {
      list.back().state = "expired";
    }
  }
  std::sort(list.begin(), list.end(), [](const ApprovalRecord& a, const ApprovalRecord& b) {
    return a.created_at > b.created_at;
  });
  return list;
}

std::vector<std::function<void(ApprovalAnswer)>> Approvals::ExpireLocked() {
  std::vector<std::function<void(ApprovalAnswer)>> told;
  const auto now = clock_.Now();
  for (auto it = records_.begin(); it != records_.end();) {
    ApprovalRecord& record = it->second;
    if (record.state == "pending" && record.expires_at <= now) {
      record.state = "expired";
      // A store that does not take it shows it as pending and past its time, which is the same.
      static_cast<void>(store_.Put(record));
      const auto [first, last] = waiting_.equal_range(record.id);
      for (auto waiting = first; waiting != last; ++waiting) {
        told.push_back(std::move(waiting->second));
      }
      waiting_.erase(first, last);
    }
    const bool old = record.state != "pending" &&
                     (record.created_at + kKept <= now || records_.size() > kMaxKept);
    if (old) {
      static_cast<void>(store_.RemoveApproval(record.id));
      it = records_.erase(it);
    } else {
      ++it;
    }
  }
  return told;
}

void Approvals::ExpireOnTime() {
  while (true) {
    std::vector<std::function<void(ApprovalAnswer)>> told;
    {
      MutexLock hold(mu_);
      bool pending = false;
      for (const auto& [id, record] : records_) {
        pending = pending || record.state == "pending";
      }
      if (!stopping_ && pending) {
        changed_.WaitUntil(mu_, After(kTick));
      } else if (!stopping_) {
        changed_.Wait(mu_);
      }
      if (stopping_) {
        return;
      }
      told = ExpireLocked();
    }
    for (const auto& done : told) {
      done(ApprovalAnswer::kExpired);
    }
  }
}

}  // namespace creel
