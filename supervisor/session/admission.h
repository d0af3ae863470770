#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"

namespace creel {

// Bounds on how many sandboxes there are and how fast they are made. Not thread-safe.
class Admission {
 public:
  Admission(const SessionsConfig& limits, std::chrono::steady_clock::time_point now);

  // Other limits from now on; what is open stays open.
  void SetLimits(const SessionsConfig& limits);

  // Whether one more may be made at `now`, when `open` are open, `by_sender` of them by `sender`
  // (empty: unknown, not counted). Takes from the rate if so. kResourceExhausted says which limit
  // it is and what to do.
  absl::Status Admit(size_t open, size_t by_sender, const std::string& sender,
                     std::chrono::steady_clock::time_point now);
  // The same for one that takes the place of another: only the rate counts.
  absl::Status AdmitRenewal(std::chrono::steady_clock::time_point now);

 private:
  SessionsConfig limits_;
  double tokens_;
  std::chrono::steady_clock::time_point filled_at_;
};

}  // namespace creel
