#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/config/policy_config.h"
#include "supervisor/policy/policy.h"
#include "supervisor/policy/secret_finder.h"

namespace creel {

enum class ReplyVerdict { kAllow, kRedact, kDeny };

struct ReplyFinding {
  std::string kind;
  uint32_t count = 0;
};

struct ReplyAnswer {
  ReplyVerdict verdict = ReplyVerdict::kDeny;
  std::string text;    // what may be sent; empty for kDeny
  std::string rule;    // stable, such as `reply.secrets`
  std::string reason;  // repeats nothing of what was found
  std::vector<ReplyFinding> findings;
};

// Looks through what is about to leave. Pure; thread-safe.
class ReplyGuard {
 public:
  // `secrets` never leave, whoever reads. `folders` are paths of the host besides home folders.
  ReplyGuard(const std::vector<std::string>& secrets, std::vector<std::string> folders,
             OnSecret on_secret);

  // In time linear in the text.
  [[nodiscard]] ReplyAnswer Check(std::string_view text, const ReplyRules& rules) const;

 private:
  SecretFinder secrets_;
  std::vector<std::string> folders_;
  OnSecret on_secret_;
};

}  // namespace creel
