#pragma once

#include <algorithm>
#include <chrono>

namespace creel::egress {

// So much a minute, with a minute's worth at once.
class Bucket {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit Bucket(double per_minute) : per_minute_(per_minute), left_(per_minute) {}

  void SetRate(double per_minute) {
    per_minute_ = per_minute;
    left_ = last_ == Time() ? per_minute : std::min(left_, per_minute);
  }
  // What may be taken now; zero or less: nothing.
  double Left(Time now) {
    if (last_ != Time()) {
      left_ =
          std::min(per_minute_,
                   left_ + per_minute_ * std::chrono::duration<double>(now - last_).count() / 60);
    }
    last_ = now;
    return left_;
  }
  // May go below zero, which is then made up for.
  void Take(double amount) { left_ -= amount; }

 private:
  double per_minute_;
  double left_;
  Time last_{};
};

}  // namespace creel::egress
