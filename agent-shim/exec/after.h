#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace creel::shim {

// Calls that wait until a lock has been given back: declared before the lock, they run after it, so
// that nobody is called with the lock held.
class After {
 public:
  After() = default;
  After(const After&) = delete;
  After& operator=(const After&) = delete;
  ~After() {
    // A call may not add to the list; each has its own.
    for (const std::function<void()>& call : calls_) {
      call();
    }
  }
  void Call(std::function<void()> call) { calls_.push_back(std::move(call)); }

 private:
  std::vector<std::function<void()>> calls_;
};

}  // namespace creel::shim
