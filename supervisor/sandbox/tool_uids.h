#pragma once

#include <cstdint>
#include <set>

#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"

namespace creel {

// Hands out one uid to each living sandbox. Two with the same uid would share the kernel's per-uid
// limits (inotify instances, pending signals) although they are different containers. A uid that
// was given back comes again as late as possible. Thread-safe.
class ToolUids {
 public:
  // Uids from `base` up to, not including, `base + count`.
  ToolUids(uint32_t base, uint32_t count);

  // kResourceExhausted: all are taken.
  absl::StatusOr<uint32_t> Take();
  // Marks a uid of a sandbox that lives already. False: it is taken. One outside the range, as
  // after a change of the configuration, is remembered too.
  bool Reserve(uint32_t uid);
  void Release(uint32_t uid);

 private:
  const uint32_t base_;
  const uint32_t count_;
  Mutex mu_;
  std::set<uint32_t> taken_ ABSL_GUARDED_BY(mu_);
  // Distance from base_ of the next one to try.
  uint32_t next_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace creel
