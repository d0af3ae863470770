#pragma once

#include <atomic>

#include "absl/status/status.h"

namespace creel::shim {

// Set once, from any thread, when nobody waits for the outcome of a call any more. Long work looks
// at it between steps.
class Cancel {
 public:
  void Set() { set_.store(true, std::memory_order_release); }
  [[nodiscard]] bool IsSet() const { return set_.load(std::memory_order_acquire); }
  // kCancelled once it is set.
  [[nodiscard]] absl::Status Check() const {
    return IsSet() ? absl::CancelledError("the call was cancelled") : absl::OkStatus();
  }

 private:
  std::atomic<bool> set_{false};
};

}  // namespace creel::shim
