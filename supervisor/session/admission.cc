#include "supervisor/session/admission.h"

#include <fmt/format.h>

#include <algorithm>

#include "supervisor/base/escape.h"

namespace creel {

Admission::Admission(const SessionsConfig& limits, std::chrono::steady_clock::time_point now)
    : limits_(limits), tokens_(limits.opens_per_minute), filled_at_(now) {}

void Admission::SetLimits(const SessionsConfig& limits) {
  limits_ = limits;
  tokens_ = std::min(tokens_, static_cast<double>(limits.opens_per_minute));
}

absl::Status Admission::Admit(size_t open, size_t by_sender, const std::string& sender,
                              std::chrono::steady_clock::time_point now) {
  if (open >= limits_.max) {
    return absl::ResourceExhaustedError(
        fmt::format("{} sandboxes are open, as many as sessions.max allows; close one (creel ps, "
                    "creel close), or raise sessions.max",
                    open));
  }
  if (!sender.empty() && by_sender >= limits_.max_per_sender) {
    return absl::ResourceExhaustedError(
        fmt::format("sender '{}' has {} sandboxes open, as many as sessions.max_per_sender allows; "
                    "close one (creel ps, creel close), or raise sessions.max_per_sender",
                    Printable(sender, 120), by_sender));
  }
  return AdmitRenewal(now);
}

absl::Status Admission::AdmitRenewal(std::chrono::steady_clock::time_point now) {
  const double per_second = limits_.opens_per_minute / 60.0;
  const double passed = std::chrono::duration<double>(now - filled_at_).count();
  tokens_ = std::min(tokens_ + std::max(passed, 0.0) * per_second,
                     static_cast<double>(limits_.opens_per_minute));
  filled_at_ = now;
  if (tokens_ < 1) {
    return absl::ResourceExhaustedError(
        fmt::format("{} sandboxes were made within a minute, as many as sessions.opens_per_minute "
                    "allows; try again in {:.1f} s, or raise sessions.opens_per_minute",
                    limits_.opens_per_minute, (1 - tokens_) / per_second));
  }
  tokens_ -= 1;
  return absl::OkStatus();
}

}  // namespace creel
