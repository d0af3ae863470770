#pragma once

#include <sys/types.h>

#include <memory>
#include <vector>

#include "agent-shim/exec/launch_packet.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// A reaper as PID 1 holds it: the socket to it, and its pid as soon as it has told.
struct Reaper {
  UniqueFd socket;
  pid_t pid = 0;
};

// PID 1's end of the nursery process and of the reapers that wait for work. Thread-safe.
//
// PID 1 itself has threads and much memory by the time a command comes, so that forking it would be
// slow; the nursery was forked before and is small. One reaper at least is always kept ahead, so
// that a start costs one wake-up.
class Nursery {
 public:
  // Forks the nursery. Best called before the process has threads.
  static absl::StatusOr<std::unique_ptr<Nursery>> Start();
  // The reapers that wait end; those with a command go on until it has ended.
  ~Nursery();
  Nursery(const Nursery&) = delete;
  Nursery& operator=(const Nursery&) = delete;

  // A reaper that waits for work, or one that is being forked at this moment: what is sent to its
  // socket is kept for it. Never waits.
  absl::StatusOr<Reaper> Take();
  // Gives back a reaper that has reported that nothing is left of its command.
  void Return(Reaper reaper);
  // Sees to it that one reaper waits. Called off the path of a command.
  void Refill();

  // Forks a new nursery in place of one that has died; the reapers that waited are let go. Take does
  // so by itself when it finds the nursery dead.
  absl::Status Restart();

  [[nodiscard]] pid_t pid() const;
  // Whether reapers are subreapers. If not, each command needs a mark (marks.h).
  [[nodiscard]] bool subreapers() const { return subreapers_; }

 private:
  explicit Nursery(bool subreapers) : subreapers_(subreapers) {}
  absl::Status ForkLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Reaper> OrderLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const bool subreapers_;
  mutable Mutex mu_;
  UniqueFd socket_ ABSL_GUARDED_BY(mu_);
  pid_t pid_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Reaper> idle_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel::shim
