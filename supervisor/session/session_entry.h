#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/sandbox/tool_uids.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Somebody who wants a session's sandbox.
struct SessionRequest {
  OpenOptions options;
  // Whether the settings of `options` are asked for (OpenSession), or only the sandbox is.
  bool with_settings = false;
  // `created`: this request made the sandbox.
  std::function<void(absl::StatusOr<std::shared_ptr<Sandbox>>, bool created)> done{};
};

// Gives a tool uid back when the last that knows of its sandbox is gone.
class ToolUidLease {
 public:
  // `uid` was taken from `uids`.
  ToolUidLease(std::shared_ptr<ToolUids> uids, uint32_t uid) : uids_(std::move(uids)), uid_(uid) {}
  ToolUidLease(const ToolUidLease&) = delete;
  ToolUidLease& operator=(const ToolUidLease&) = delete;
  ~ToolUidLease() { uids_->Release(uid_); }

 private:
  const std::shared_ptr<ToolUids> uids_;
  const uint32_t uid_;
};

// One sandbox with its sessions, from the first request to its removal.
struct SessionEntry {
  // Set once, before others can see it.
  std::string name;
  std::string sender;
  std::chrono::system_clock::time_point opened_at;

  // Guarded by the manager's lock.
  SandboxIdentity identity;
  SessionState state = SessionState::kOpening;
  std::string reason;
  // Why it is not held to its level's limits; empty: it is.
  std::string limits_problem;
  // Its limits are being changed.
  bool limiting = false;
  std::string warning;  // see SessionView
  // Somebody opens, freezes, thaws or closes it; others who would wait.
  bool busy = true;
  std::shared_ptr<Sandbox> sandbox;
  std::vector<SessionRequest> waiting;
  std::unique_ptr<ToolUidLease> uid;
  // Sandbox::OnLost's, for the record.
  std::shared_ptr<void> loss_watch;
  // The container that was taken from the pool for it, until the opening turns it into `sandbox`.
  std::unique_ptr<PooledSandbox> pooled;
  // When it was last found in use, or the engine could not pause it: it is left alone for a while.
  std::chrono::system_clock::time_point awake_at;

  // Microseconds since 1970, so that a call need not take the lock again.
  std::atomic<int64_t> last_call{0};
  std::atomic<int> calls{0};
  // `last_call` is newer than what the store has.
  std::atomic<bool> touched{false};

  void CalledAt(std::chrono::system_clock::time_point now) {
    last_call.store(
        std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count(),
        std::memory_order_relaxed);
    touched.store(true, std::memory_order_relaxed);
  }
  [[nodiscard]] std::chrono::system_clock::time_point last_call_at() const {
    return std::chrono::system_clock::time_point(
        std::chrono::microseconds(last_call.load(std::memory_order_relaxed)));
  }
};

// The sandbox of `entry`, as a pointer that counts as a call under way while it is held.
std::shared_ptr<Sandbox> LeaseSandbox(std::shared_ptr<SessionEntry> entry,
                                      const std::shared_ptr<Sandbox>& sandbox, const Clock& clock);

}  // namespace creel
