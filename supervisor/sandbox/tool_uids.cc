#include "supervisor/sandbox/tool_uids.h"

#include <fmt/format.h>

namespace creel {

ToolUids::ToolUids(uint32_t base, uint32_t count) : base_(base), count_(count) {}

absl::StatusOr<uint32_t> ToolUids::Take() {
  MutexLock lock(mu_);
  for (uint32_t tried = 0; tried < count_; ++tried) {
    const uint32_t uid = base_ + next_;
    next_ = (next_ + 1) % count_;
    if (taken_.insert(uid).second) {
      return uid;
    }
  }
  return absl::ResourceExhaustedError(
      fmt::format("all {} tool uids from {} on are in use: close sessions, or raise "
                  "sandbox.tool_uid_count",
                  count_, base_));
}

bool ToolUids::Reserve(uint32_t uid) {
  MutexLock lock(mu_);
  if (!taken_.insert(uid).second) {
    return false;
  }
  if (uid >= base_ && uid - base_ < count_) {
    next_ = (uid - base_ + 1) % count_;
  }
  return true;
}

void ToolUids::Release(uint32_t uid) {
  MutexLock lock(mu_);
  taken_.erase(uid);
}

}  // namespace creel
