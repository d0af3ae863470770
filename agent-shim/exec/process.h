#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "agent-shim/exec/after.h"
#include "agent-shim/exec/event_loop.h"
#include "agent-shim/exec/launch.h"
#include "agent-shim/exec/nursery.h"
#include "agent-shim/exec/output_ring.h"
#include "agent-shim/exec/stdio.h"
#include "creel/shim/v1/process.pb.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"

namespace creel::shim {

class Process;

// Whoever reads a process's output. Called from any thread, with no lock held.
class ProcessReader {
 public:
  virtual ~ProcessReader() = default;
  // There is more to read, or the end.
  virtual void Wake() = 0;
};

// What a look for processes to be killed has brought.
struct Found {
  std::vector<pid_t> killed;
  bool clean = true;  // neither those nor any that are dead and not yet reaped
};

// The table that a process belongs to. Called with no lock of the process held.
class ProcessOwner {
 public:
  virtual ~ProcessOwner() = default;
  // Its exit is known; it may have left background processes.
  virtual void Ended(const std::shared_ptr<Process>& process) = 0;
  // Nothing is left of it. The reaper, if its socket is set, can be used again.
  virtual void Emptied(const std::shared_ptr<Process>& process, Reaper reaper) = 0;
  // The last step of the ladder: every process of the sandbox has to end.
  virtual void KillEverything() = 0;
  // Kills what belongs to no living reaper; where there are no subreapers, what bears `mark` or no
  // mark of a live command.
  virtual Found KillStrays(gid_t mark) = 0;
  // Without subreapers: its exit is known, and the table is to find out when nothing is left of it,
  // and to call NoTrace then. Its reaper, if the socket is set, can be used again.
  virtual void Orphaned(const std::shared_ptr<Process>& process, Reaper reaper) = 0;
};

// One command from its launch until nothing of it is left. Thread-safe; nothing here waits.
class Process : public std::enable_shared_from_this<Process> {
 public:
  struct Options {
    std::string id;
    v1::CommandSpec spec;  // as asked for
    uint64_t ring_bytes = 256u << 10;
    // Set where there are no subreapers (marks.h).
    gid_t mark = 0;
  };
  struct Pending {};
  // What a reader gets next. A status: the command was refused, or the reader was replaced.
  using Next = std::variant<Pending, v1::ProcessInfo, OutputRing::Piece, v1::OutputGap, v1::Exit,
                            absl::Status>;
  using Done = std::function<void(const absl::Status&)>;

  // `loop`, `defaults` and `owner` must outlive it.
  Process(EventLoop& loop, const CommandDefaults& defaults, ProcessOwner& owner, Options options);

  // Starts it. On failure nothing has been started and the object is of no more use.
  absl::Status Launch(LaunchOrder order, Nursery& nursery);

  // From now on this reader gets what comes, and the one before gets kAborted.
  void Attach(const std::shared_ptr<ProcessReader>& reader, uint64_t offset);
  void Detach(const ProcessReader* reader);
  // What `reader`, which has taken everything before `offset`, gets next; first of all the info, if
  // it has not had it. If that is Pending, its Wake is called when there is more.
  Next Read(const ProcessReader* reader, uint64_t offset, bool has_info);

  // Tells the reader that there is something new.
  void WakeReader();

  // Sends input, a signal or a stop. `done` is called once: for a stop when nothing of the command
  // is left, otherwise before this returns. `bounded`: more input than the command takes is refused
  // with kResourceExhausted; else the caller waits for InputRoom before it sends more.
  void Send(const v1::ProcessInput& input, bool bounded, Done done);
  // True if there is room now; else `room` is called once there is, or the command has ended.
  bool InputRoom(std::function<void()> room);

  [[nodiscard]] const std::string& id() const { return options_.id; }
  [[nodiscard]] v1::ProcessInfo Info() const;
  [[nodiscard]] pid_t reaper_pid() const;
  [[nodiscard]] pid_t pid() const;
  [[nodiscard]] uint64_t output_cost() const;
  [[nodiscard]] gid_t mark() const { return options_.mark; }
  // The command itself has ended; background processes of it may be left.
  [[nodiscard]] bool main_exited() const;
  // It could not even be forked; there is nothing to remember.
  [[nodiscard]] bool refused() const;

  // No process that bears the mark is there, and none was when main_exited() was already true.
  void NoTrace();
  // Gives up kept output, and output still to come.
  void DropOutput();
  // Every process of the sandbox is being killed, this one's too.
  void EverythingDies();
  // They are dead. `statuses` holds the wait status of those that PID 1 reaped itself.
  void EverythingDied(const std::map<pid_t, int>& statuses);
  // The table ends: nothing of this object is called back any more.
  void Abandon();

 private:
  enum class Ladder { kNone, kTerm, kKill, kSubtree, kAll };
  // One of the command's outputs, at our end.
  struct Source {
    UniqueFd fd;
    uint64_t watch = 0;
    v1::OutputStream stream = v1::OUTPUT_STREAM_STDOUT;
    bool readable = false;  // there may be something; cleared by EAGAIN
    bool grown = false;     // the pipe was made larger
  };

  // process.cc: launch, reports of the reaper, the end.
  absl::Status LaunchLocked(LaunchOrder& order, Nursery& nursery)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status WatchOutputLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnReports();
  // False once the socket has ended.
  bool TakeReportsLocked(After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeReportLocked(const Report& report, After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartFailedLocked(const Report& report, After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReaperLostLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MainExitedLocked(int status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OrphanedLocked(After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EmptyLocked(After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TryFinishLocked(After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishLocked(v1::Exit exit, After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] v1::ProcessInfo InfoLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetTimerLocked(uint64_t& id, Deadline when, void (Process::*on_time)())
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CancelTimerLocked(uint64_t& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnDrainOver();

  // process_io.cc: output and input.
  void OnOutput(v1::OutputStream which);
  void OnInput();
  bool ReadOutputLocked(uint64_t at_most, bool force) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool ReadSourceLocked(Source& source, uint64_t& budget, bool force)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasRoomLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] uint64_t KeepFromLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CloseSourceLocked(Source& source) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ResumeReadingLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnStall();
  void WakeReaderLocked(After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status QueueInputLocked(const v1::ProcessInput& input, bool bounded, After& after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FlushInputLocked(After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CloseInputLocked(After& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status SignalLocked(int number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // process_stop.cc: the kill ladder.
  void StopLocked(std::chrono::nanoseconds grace) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnTimeout();
  void OnTick();
  void StepKillLocked(Deadline now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StepSubtreeLocked(const Found& found, Deadline now, After& after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EnterSubtreeStepLocked(Deadline now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TermLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] bool GroupGoneLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RaiseKillStepLocked(v1::KillStep step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  EventLoop& loop_;
  const CommandDefaults& defaults_;
  ProcessOwner& owner_;
  const Options options_;  // with a summary of the command
  const std::chrono::nanoseconds timeout_;
  const std::chrono::nanoseconds grace_;
  const std::chrono::system_clock::time_point started_at_;
  const Deadline started_steady_;

  mutable Mutex mu_;
  Reaper reaper_ ABSL_GUARDED_BY(mu_);
  uint64_t reaper_watch_ ABSL_GUARDED_BY(mu_) = 0;
  pid_t pid_ ABSL_GUARDED_BY(mu_) = 0;
  bool launched_ ABSL_GUARDED_BY(mu_) = false;
  bool started_ ABSL_GUARDED_BY(mu_) = false;  // the info may be told
  bool main_exited_ ABSL_GUARDED_BY(mu_) = false;
  bool reaper_lost_ ABSL_GUARDED_BY(mu_) = false;
  bool empty_ ABSL_GUARDED_BY(mu_) = false;
  bool drain_over_ ABSL_GUARDED_BY(mu_) = false;
  bool forgotten_ ABSL_GUARDED_BY(mu_) = false;
  int wait_status_ ABSL_GUARDED_BY(mu_) = 0;
  Deadline ended_steady_ ABSL_GUARDED_BY(mu_);
  std::optional<v1::Exit> exit_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> refusal_ ABSL_GUARDED_BY(mu_);

  Source out_ ABSL_GUARDED_BY(mu_);
  Source err_ ABSL_GUARDED_BY(mu_);
  OutputRing ring_ ABSL_GUARDED_BY(mu_);
  std::weak_ptr<ProcessReader> reader_ ABSL_GUARDED_BY(mu_);
  const ProcessReader* reader_id_ ABSL_GUARDED_BY(mu_) = nullptr;  // null: nobody is attached
  bool reader_waits_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_before_attach_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t read_to_ ABSL_GUARDED_BY(mu_) = 0;  // once it has ended: the exit comes after this
  bool err_first_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t taken_ ABSL_GUARDED_BY(mu_) = 0;  // how far the present or last reader got
  Deadline taken_at_ ABSL_GUARDED_BY(mu_);
  bool paused_ ABSL_GUARDED_BY(mu_) = false;   // output waits in the pipe for want of room
  bool stalled_ ABSL_GUARDED_BY(mu_) = false;  // the reader took nothing for long

  UniqueFd in_ ABSL_GUARDED_BY(mu_);  // not for a terminal, whose input goes to `out_`
  uint64_t in_watch_ ABSL_GUARDED_BY(mu_) = 0;
  bool in_closed_ ABSL_GUARDED_BY(mu_) = false;  // no more input is taken
  std::deque<std::string> input_ ABSL_GUARDED_BY(mu_);
  size_t input_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  size_t input_done_ ABSL_GUARDED_BY(mu_) = 0;  // of the first string
  std::vector<std::function<void()>> room_waiters_ ABSL_GUARDED_BY(mu_);
  std::vector<int> early_signals_ ABSL_GUARDED_BY(mu_);  // came before the command was started

  Ladder ladder_ ABSL_GUARDED_BY(mu_) = Ladder::kNone;
  v1::KillStep kill_step_ ABSL_GUARDED_BY(mu_) = v1::KILL_STEP_UNSPECIFIED;
  bool timed_out_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  Deadline step_ends_ ABSL_GUARDED_BY(mu_);
  Deadline step_began_ ABSL_GUARDED_BY(mu_);
  int clean_looks_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<pid_t> hunted_ ABSL_GUARDED_BY(mu_);  // found below the reaper so far
  Deadline last_new_ ABSL_GUARDED_BY(mu_);       // when one was found that was not there before
  std::vector<Done> stop_waiters_ ABSL_GUARDED_BY(mu_);

  uint64_t timeout_timer_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t drain_timer_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t stall_timer_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t tick_timer_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace creel::shim
