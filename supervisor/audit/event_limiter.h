#pragma once

#include <chrono>
#include <cstdint>

#include "supervisor/base/mutex.h"

namespace creel {

// Bounds how often something that others can cause at will is told: sixteen at once, then one a
// second. Thread-safe.
class EventLimiter {
 public:
  // Whether this one is told; `left_out` then says how many before it were not.
  bool Allow(uint64_t& left_out) {
    MutexLock hold(mu_);
    const auto now = std::chrono::steady_clock::now();
    const double passed = std::chrono::duration<double>(now - filled_at_).count();
    filled_at_ = now;
    tokens_ = tokens_ + passed < kBurst ? tokens_ + passed : kBurst;
    if (tokens_ < 1) {
      ++left_out_;
      return false;
    }
    tokens_ -= 1;
    left_out = left_out_;
    left_out_ = 0;
    return true;
  }

 private:
  static constexpr double kBurst = 16;

  Mutex mu_;
  double tokens_ ABSL_GUARDED_BY(mu_) = kBurst;
  std::chrono::steady_clock::time_point filled_at_ ABSL_GUARDED_BY(mu_){
      std::chrono::steady_clock::now()};
  uint64_t left_out_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace creel
