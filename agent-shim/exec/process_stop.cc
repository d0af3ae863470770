// The kill ladder of a command: each step is taken only if the one before has not emptied the
// command's subtree in its time. What ends the ladder is the reaper's word that it has no child
// left, which is the kernel's word; /proc is read only to find whom to kill. Where there are no
// subreapers the reaper knows of the command alone, and a look at all processes finds no mark of it
// at the end.

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent-shim/exec/process.h"
#include "agent-shim/exec/process_tree.h"

namespace creel::shim {
namespace {

constexpr std::chrono::milliseconds kTick{10};
// What SIGKILL is given to take effect on the group before the subtree is looked through.
constexpr std::chrono::milliseconds kKillTime{50};
// How long the subtree is hunted. Longer means that it forks faster than it is read.
constexpr std::chrono::milliseconds kSubtreeTime{250};
// How long it may be in all before every process of the sandbox has to go with it.
constexpr std::chrono::seconds kSubtreePatience{3};
// What a command that is being started gets until it has a group that can be signalled.
constexpr std::chrono::seconds kStartTime{2};
constexpr std::chrono::hours kMaxGrace{1};
// Looks in a row that must find no stray before a command without its reaper counts as ended.
constexpr int kCleanLooks = 3;

}  // namespace

void Process::StopLocked(std::chrono::nanoseconds grace) {
  const Deadline now = std::chrono::steady_clock::now();
  const Deadline ends =
      now + std::clamp<std::chrono::nanoseconds>(grace, std::chrono::nanoseconds(0), kMaxGrace);
  if (ladder_ == Ladder::kTerm) {
    step_ends_ = std::min(step_ends_, ends);  // asked again, perhaps more urgently
  }
  if (ladder_ != Ladder::kNone || empty_) {
    return;
  }
  CancelTimerLocked(timeout_timer_);
  ladder_ = Ladder::kTerm;
  step_ends_ = ends;
  TermLocked();
  SetTimerLocked(tick_timer_, std::min(ends, now + kTick), &Process::OnTick);
}

void Process::TermLocked() {
  if (pid_ > 0 && kill(-pid_, SIGTERM) == 0) {
    RaiseKillStepLocked(v1::KILL_STEP_TERM);
    kill(-pid_, SIGCONT);  // what is stopped would not see it
  }
}

void Process::OnTimeout() {
  MutexLock lock(mu_);
  timeout_timer_ = 0;
  if (main_exited_ || exit_.has_value()) {
    return;
  }
  timed_out_ = ladder_ == Ladder::kNone;
  StopLocked(grace_);
}

bool Process::GroupGoneLocked() const {
  return pid_ == 0 || (kill(-pid_, 0) != 0 && errno == ESRCH);
}

void Process::RaiseKillStepLocked(v1::KillStep step) {
  // What is hunted down after the exit was told is no part of it.
  if (!exit_.has_value()) {
    kill_step_ = std::max(kill_step_, step);
  }
}

void Process::OnTick() {
  Found found;
  bool look = false;
  bool exited = false;
  {
    MutexLock lock(mu_);
    look = (reaper_lost_ || options_.mark != 0) && ladder_ == Ladder::kSubtree;
    exited = main_exited_ || reaper_lost_;
  }
  if (look) {
    found = owner_.KillStrays(options_.mark);
    found.clean = found.clean && exited;  // one that is only just starting has no mark yet
  }
  After after;
  MutexLock lock(mu_);
  tick_timer_ = 0;
  if (empty_) {
    return;
  }
  const Deadline now = std::chrono::steady_clock::now();
  switch (ladder_) {
    case Ladder::kNone:
    case Ladder::kAll:
      return;  // the table goes on from there
    case Ladder::kTerm:
      // A command that is just being started has no group yet.
      if (pid_ == 0 && !main_exited_ && now < started_steady_ + kStartTime) {
        break;
      }
      if (now >= step_ends_ || GroupGoneLocked()) {
        StepKillLocked(now);
      }
      break;
    case Ladder::kKill:
      if (now >= step_ends_ || GroupGoneLocked()) {
        EnterSubtreeStepLocked(now);
        return;
      }
      break;
    case Ladder::kSubtree:
      if (!look && reaper_.pid > 0) {
        found.killed = KillDescendants(reaper_.pid);
      }
      StepSubtreeLocked(found, now, after);
      return;
  }
  SetTimerLocked(tick_timer_, now + kTick, &Process::OnTick);
}

void Process::StepKillLocked(Deadline now) {
  ladder_ = Ladder::kKill;
  step_ends_ = now + kKillTime;
  if (pid_ > 0 && kill(-pid_, SIGKILL) == 0) {
    RaiseKillStepLocked(v1::KILL_STEP_KILL);
  }
}

void Process::EnterSubtreeStepLocked(Deadline now) {
  ladder_ = Ladder::kSubtree;
  step_began_ = now;
  last_new_ = now;
  SetTimerLocked(tick_timer_, now, &Process::OnTick);
}

void Process::StepSubtreeLocked(const Found& found, Deadline now, After& after) {
  if (!found.killed.empty()) {
    RaiseKillStepLocked(v1::KILL_STEP_SUBTREE);
  }
  clean_looks_ = found.clean ? clean_looks_ + 1 : 0;
  if ((reaper_lost_ && clean_looks_ >= kCleanLooks) ||
      (options_.mark != 0 && main_exited_ && clean_looks_ > 0)) {
    EmptyLocked(after);
    TryFinishLocked(after);
    return;
  }
  for (const pid_t pid : found.killed) {
    if (hunted_.insert(pid).second) {
      last_new_ = now;
    }
  }
  // New ones all the time: it forks faster than it is found. The same ones: the kernel is still at
  // it, as with one that waits for a disk, and to kill others would not help.
  const bool outrun = now >= step_began_ + kSubtreeTime && now < last_new_ + 3 * kTick;
  if (outrun || now >= step_began_ + kSubtreePatience) {
    ladder_ = Ladder::kAll;
    after.Call([self = shared_from_this()] { self->owner_.KillEverything(); });
    return;
  }
  SetTimerLocked(tick_timer_, now + kTick, &Process::OnTick);
}

void Process::EverythingDies() {
  MutexLock lock(mu_);
  if (empty_) {
    return;
  }
  CancelTimerLocked(tick_timer_);
  CancelTimerLocked(timeout_timer_);
  ladder_ = Ladder::kAll;
  if (!exit_.has_value()) {
    stopped_ = stopped_ || !timed_out_;
    RaiseKillStepLocked(v1::KILL_STEP_ALL);
  }
}

void Process::EverythingDied(const std::map<pid_t, int>& statuses) {
  After after;
  MutexLock lock(mu_);
  if (empty_) {
    return;
  }
  TakeReportsLocked(after);
  if (empty_) {
    return;
  }
  reaper_lost_ = true;
  reaper_.socket.reset();
  if (auto found = statuses.find(pid_); pid_ > 0 && found != statuses.end()) {
    MainExitedLocked(found->second);
  }
  EmptyLocked(after);
  TryFinishLocked(after);
}

}  // namespace creel::shim
