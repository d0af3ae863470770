#pragma once

#include <chrono>

namespace creel {

// The point by which a call must have ended.
using Deadline = std::chrono::steady_clock::time_point;

inline Deadline After(std::chrono::nanoseconds from_now) {
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<std::chrono::steady_clock::duration>(from_now);
}

// Time as the program sees it, so that tests can move it. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Wall time, for what people read and what outlives a restart.
  [[nodiscard]] virtual std::chrono::system_clock::time_point Now() const = 0;
  // Never goes back; for time-outs.
  [[nodiscard]] virtual std::chrono::steady_clock::time_point Steady() const = 0;
};

// The machine's clock.
class SystemClock final : public Clock {
 public:
  [[nodiscard]] std::chrono::system_clock::time_point Now() const override {
    return std::chrono::system_clock::now();
  }
  [[nodiscard]] std::chrono::steady_clock::time_point Steady() const override {
    return std::chrono::steady_clock::now();
  }
};

}  // namespace creel
