#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/sandbox/tool_uids.h"
#include "supervisor/session/sandbox_factory.h"
#include "supervisor/session/session_entry.h"
#include "supervisor/store/store.h"

namespace creel {

// What the store calls the state of a container that waits.
inline constexpr char kPooledState[] = "pooled";

// How the pool stands.
struct PoolView {
  size_t ready = 0;
  size_t wanted = 0;
  uint64_t memory_bytes = 0;
  std::string why{};  // there are fewer than wanted; empty: more are being made
};

// Containers of one shape (image, runtime, limits, a tool uid each) that are started ahead. Whoever
// opens a session takes one, or none at once if there is none: nobody waits for the refill, which
// in turn waits until nobody opens. A container is in the store from before it is made, and leaves
// the pool only to serve one session or to be removed. Thread-safe.
class WarmPool {
 public:
  struct Rooms {
    const Sandbox::Host& host;
    Store& store;
    SandboxFactory& sandboxes;
    std::shared_ptr<ToolUids> uids;
    const Clock& clock;
  };
  // One that was taken, with its uid.
  struct Taken {
    std::unique_ptr<PooledSandbox> sandbox;
    std::unique_ptr<ToolUidLease> uid;
  };

  // What `rooms` refer to must outlive it.
  WarmPool(Rooms rooms, const SessionsConfig& config);
  // Stops.
  ~WarmPool();
  WarmPool(const WarmPool&) = delete;
  WarmPool& operator=(const WarmPool&) = delete;

  // Begins to fill it.
  void Start();
  // Ends filling, and removes what waits; what cannot be removed by `deadline` is left to the next
  // start, which finds it in the store.
  void Stop(Deadline deadline);
  void SetLimits(const SessionsConfig& config);
  // Removes what waits, and makes no more until somebody opens a session. kUnavailable: by
  // `deadline` not all is gone; it is tried again.
  absl::Status Empty(Deadline deadline);

  // Somebody opens a session: takes one that can serve `wanted`, if there is one, and counts the
  // demand. Never waits.
  [[nodiscard]] Taken Take(const SandboxIdentity& wanted);
  // Between these the refill holds still, as it would take from those who wait.
  void OpeningBegins();
  void OpeningEnds();

  // The engine told that a container ended; one of ours is taken away.
  void ContainerEnded(const std::string& sandbox_id);
  // Of all that wait.
  [[nodiscard]] std::vector<std::string> Ids() const;
  [[nodiscard]] PoolView View() const;

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Waiting {
    std::unique_ptr<PooledSandbox> sandbox;
    std::unique_ptr<ToolUidLease> uid;
  };

  void Run();
  // Until when there is nothing to do; what is asked for in between wakes it.
  [[nodiscard]] Time NextLocked(Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] size_t WantedLocked(Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] uint64_t MemoryLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] bool MayMakeLocked(Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Those that are too many, or of no use any more.
  [[nodiscard]] std::deque<Waiting> SurplusLocked(Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Waiting> Make();
  void CheckImage();
  // Of the store too, several at a time. What fails is tried again, and else left to the next
  // start.
  void RemoveAll(std::deque<Waiting> waiting, Deadline deadline);
  void Remove(Waiting waiting, Deadline deadline);
  void RemoveLeft(Deadline deadline);

  const Rooms rooms_;
  mutable Mutex mu_;
  CondVar changed_;
  SessionsConfig config_ ABSL_GUARDED_BY(mu_);
  // From Empty to the next opening.
  bool resting_ ABSL_GUARDED_BY(mu_) = false;
  // The thread makes or removes one just now; `idle_` tells when it has ended.
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  CondVar idle_;
  std::deque<Waiting> ready_ ABSL_GUARDED_BY(mu_);
  std::deque<Waiting> ended_ ABSL_GUARDED_BY(mu_);
  // Could not be removed.
  struct Left {
    SandboxIdentity identity;
    std::unique_ptr<ToolUidLease> uid;
  };
  std::deque<Left> left_ ABSL_GUARDED_BY(mu_);
  size_t openings_ ABSL_GUARDED_BY(mu_) = 0;
  // When the last of them ended.
  Time quiet_since_ ABSL_GUARDED_BY(mu_);
  std::deque<Time> demand_ ABSL_GUARDED_BY(mu_);
  double tokens_ ABSL_GUARDED_BY(mu_) = 1;
  Time tokens_at_ ABSL_GUARDED_BY(mu_);
  Time not_before_ ABSL_GUARDED_BY(mu_);
  Time image_checked_ ABSL_GUARDED_BY(mu_);
  std::chrono::seconds backoff_ ABSL_GUARDED_BY(mu_){0};
  std::string failure_ ABSL_GUARDED_BY(mu_);
  uint64_t last_memory_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace creel
