#include "supervisor/session/hold_rules.h"

#include <fmt/format.h>

#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/policy/sender.h"

namespace creel {

bool SameSender(std::string_view a, std::string_view b) {
  if (a == b) {
    return true;
  }
  const SenderId one = ParseSender(a);
  return one.known() && one == ParseSender(b);
}

void HoldRules::Set(std::vector<HoldRule> rules) {
  MutexLock hold(mu_);
  rules_ = std::move(rules);
  any_.store(!rules_.empty(), std::memory_order_seq_cst);
}

absl::Status HoldRules::Check(std::string_view sandbox_name, std::string_view sender) const {
  if (!any_.load(std::memory_order_seq_cst)) {
    return absl::OkStatus();
  }
  MutexLock hold(mu_);
  for (const HoldRule& rule : rules_) {
    const bool out = rule.scope == HoldRule::Scope::kAll ||
                     (rule.scope == HoldRule::Scope::kSender && SameSender(rule.who, sender)) ||
                     (rule.scope == HoldRule::Scope::kSession && rule.who == sandbox_name);
    if (out) {
      return absl::FailedPreconditionError(
          fmt::format("incident {} holds {}: {}; the operator can thaw it (creel incident thaw {})",
                      rule.incident,
                      rule.scope == HoldRule::Scope::kAll      ? "everything"
                      : rule.scope == HoldRule::Scope::kSender ? "this sender"
                                                               : "this session",
                      Printable(rule.reason, 256), rule.incident));
    }
  }
  return absl::OkStatus();
}

}  // namespace creel
