#pragma once

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"

namespace creel {

// Whom an open incident keeps out.
struct HoldRule {
  enum class Scope { kAll, kSender, kSession };
  Scope scope = Scope::kAll;
  // The sender, or the name of the session's sandbox; empty for kAll.
  std::string who;
  std::string incident;
  std::string reason;
};

// Whether two texts name one sender, in whatever spelling.
bool SameSender(std::string_view a, std::string_view b);

// The gate of open incidents: what every request passes before anything else. Thread-safe, and
// costs one load while there is no incident.
class HoldRules {
 public:
  // From the return on nobody whom a rule keeps out gets through.
  void Set(std::vector<HoldRule> rules);
  // kFailedPrecondition, with the incident and what to do, for whom a rule keeps out.
  [[nodiscard]] absl::Status Check(std::string_view sandbox_name, std::string_view sender) const;

 private:
  std::atomic<bool> any_{false};
  mutable Mutex mu_;
  std::vector<HoldRule> rules_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
