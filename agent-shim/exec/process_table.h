#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent-shim/exec/event_loop.h"
#include "agent-shim/exec/launch.h"
#include "agent-shim/exec/marks.h"
#include "agent-shim/exec/nursery.h"
#include "agent-shim/exec/process.h"
#include "creel/shim/v1/shim.pb.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"

namespace creel::shim {

// All commands of the sandbox: those that run, and the last ones that have ended. Thread-safe;
// nothing here waits.
class ProcessTable final : public ProcessOwner {
 public:
  struct Options {
    CommandDefaults defaults;
    // Output kept per command.
    uint64_t ring_bytes = 256u << 10;
    // The process is PID 1 of its pid namespace: it reaps what is orphaned, and its kill(-1) is the
    // end of everything. SIGCHLD must be blocked in all threads. False, as in tests: all that is
    // below the reapers is killed instead, as far as it can be found.
    bool is_init = false;
    // Commands that run at once, and ended ones that are remembered, with output of so many bytes
    // in all.
    size_t max_running = 512;
    size_t remembered = 256;
    uint64_t remembered_bytes = 8u << 20;
  };

  // `loop` and `nursery` must outlive it. Without subreapers it has to be `is_init`.
  static absl::StatusOr<std::unique_ptr<ProcessTable>> Start(EventLoop& loop, Nursery& nursery,
                                                             Options options);
  // The loop must have been stopped. Commands that run go on.
  ~ProcessTable() override;

  // Starts a command.
  //   kInvalidArgument    the command or the id is not well formed
  //   kAlreadyExists      the id is in use
  //   kResourceExhausted  too many commands run, or there are no descriptors left
  absl::StatusOr<std::shared_ptr<Process>> Run(const v1::StartProcess& start);
  // Null if there is none of that id.
  [[nodiscard]] std::shared_ptr<Process> Find(const std::string& id) const;
  // Oldest first.
  [[nodiscard]] std::vector<v1::ProcessInfo> List() const;

  // Kills every process of the sandbox but the shim's own, and calls `done` when they are gone.
  void KillAll(std::function<void()> done);

  // ProcessOwner:
  void Ended(const std::shared_ptr<Process>& process) override;
  void Emptied(const std::shared_ptr<Process>& process, Reaper reaper) override;
  void KillEverything() override;
  Found KillStrays(gid_t mark) override;
  void Orphaned(const std::shared_ptr<Process>& process, Reaper reaper) override;

 private:
  // A command that waits until a KillEverything is over.
  struct Waiting {
    std::shared_ptr<Process> process;
    LaunchOrder order;
  };

  ProcessTable(EventLoop& loop, Nursery& nursery, Options options);
  absl::Status WatchOrphans();
  void OnOrphans();
  void ReapOrphansLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Found KillMarkedLocked(gid_t mark) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  gid_t TakeMarkLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LookLaterLocked(std::chrono::nanoseconds pause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnLook();
  void OnClearing();
  bool AllDeadLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Cleared();
  void OnQuiet();
  void ForgetLocked(After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  EventLoop& loop_;
  Nursery& nursery_;
  const Options options_;
  UniqueFd child_signals_;
  uint64_t child_watch_ = 0;

  mutable Mutex mu_;
  uint64_t quiet_timer_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t clearing_timer_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t look_timer_ ABSL_GUARDED_BY(mu_) = 0;
  gid_t next_mark_ ABSL_GUARDED_BY(mu_) = kFirstMark;
  std::map<std::string, std::shared_ptr<Process>> by_id_ ABSL_GUARDED_BY(mu_);
  std::set<std::shared_ptr<Process>> live_ ABSL_GUARDED_BY(mu_);  // something may be left of them
  std::deque<std::shared_ptr<Process>> ended_ ABSL_GUARDED_BY(mu_);  // the oldest first
  bool clearing_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  std::vector<std::function<void()>> cleared_waiters_ ABSL_GUARDED_BY(mu_);
  std::map<pid_t, int> orphan_statuses_ ABSL_GUARDED_BY(mu_);  // reaped while clearing
};

}  // namespace creel::shim
