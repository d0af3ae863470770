#include "agent-shim/exec/process.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>
#include <utility>

#include "google/protobuf/util/time_util.h"

namespace creel::shim {
namespace {

using google::protobuf::util::TimeUtil;

// How long the exit is held back for output of children that still hold the pipes. The command's
// own is in the pipes by the time it has ended.
constexpr std::chrono::milliseconds kDrain{50};
// What is read at the end without regard to room; a child that goes on writing cannot delay it.
constexpr uint64_t kDrainBytes = 2u << 20;
constexpr std::chrono::nanoseconds kDefaultGrace = std::chrono::seconds(2);
// A reaper that dies between being taken and the launch is replaced this often.
constexpr int kLaunchTries = 3;

std::chrono::nanoseconds ToNanos(const google::protobuf::Duration& duration) {
  return std::chrono::nanoseconds(TimeUtil::DurationToNanoseconds(duration));
}

Process::Options Summarised(Process::Options options) {
  options.spec = Summary(options.spec);
  return options;
}

}  // namespace

Process::Process(EventLoop& loop, const CommandDefaults& defaults, ProcessOwner& owner,
                 Options options)
    : loop_(loop),
      defaults_(defaults),
      owner_(owner),
      options_(Summarised(std::move(options))),
      timeout_(ToNanos(options_.spec.timeout())),
      grace_(options_.spec.has_grace() ? ToNanos(options_.spec.grace()) : kDefaultGrace),
      started_at_(std::chrono::system_clock::now()),
      started_steady_(std::chrono::steady_clock::now()) {
  out_.stream = v1::OUTPUT_STREAM_STDOUT;
  err_.stream = v1::OUTPUT_STREAM_STDERR;
}

absl::Status Process::Launch(LaunchOrder order, Nursery& nursery) {
  MutexLock lock(mu_);
  absl::Status launched = LaunchLocked(order, nursery);
  if (!launched.ok()) {
    for (uint64_t watch : {reaper_watch_, out_.watch, err_.watch, in_watch_}) {
      loop_.Unwatch(watch);
    }
    refusal_ = launched;
    empty_ = true;
  }
  return launched;
}

absl::Status Process::LaunchLocked(LaunchOrder& order, Nursery& nursery) {
  Stdio stdio;
  const v1::CommandSpec& spec = options_.spec;
  if (spec.has_terminal()) {
    WindowSize size;
    if (spec.terminal().rows() != 0) {
      size.rows = static_cast<uint16_t>(std::min(spec.terminal().rows(), 65535U));
    }
    if (spec.terminal().columns() != 0) {
      size.columns = static_cast<uint16_t>(std::min(spec.terminal().columns(), 65535U));
    }
    ASSIGN_OR_RETURN(stdio, MakeTerminal(size, defaults_.user));
  } else {
    ASSIGN_OR_RETURN(stdio, MakePipes(spec.stdin(), defaults_.user));
    in_closed_ = !spec.stdin();
  }
  // All is watched before the launch, so that nothing runs that could not be followed.
  in_ = std::move(stdio.in);
  out_.fd = std::move(stdio.out);
  err_.fd = std::move(stdio.err);
  RETURN_IF_ERROR(WatchOutputLocked());
  absl::Status sent;
  for (int attempt = 0; attempt < kLaunchTries; ++attempt) {
    loop_.Unwatch(std::exchange(reaper_watch_, 0));
    ASSIGN_OR_RETURN(reaper_, nursery.Take());
    ASSIGN_OR_RETURN(reaper_watch_,
                     loop_.Watch(reaper_.socket.get(), EPOLLIN,
                                 [self = shared_from_this()](uint32_t) { self->OnReports(); }));
    sent = SendLaunch(reaper_.socket.get(), order, stdio);
    if (!absl::IsUnavailable(sent)) {
      break;
    }
  }
  RETURN_IF_ERROR(sent);
  if (timeout_.count() > 0) {
    SetTimerLocked(timeout_timer_, started_steady_ + timeout_, &Process::OnTimeout);
  }
  return absl::OkStatus();
}

absl::Status Process::WatchOutputLocked() {
  auto self = shared_from_this();
  const uint32_t both = options_.spec.has_terminal() ? EPOLLIN | EPOLLOUT : EPOLLIN;
  ASSIGN_OR_RETURN(out_.watch, loop_.Watch(out_.fd.get(), both | EPOLLET, [self](uint32_t events) {
    if ((events & EPOLLOUT) != 0) {
      self->OnInput();
    }
    self->OnOutput(v1::OUTPUT_STREAM_STDOUT);
  }));
  if (err_.fd.valid()) {
    ASSIGN_OR_RETURN(err_.watch, loop_.Watch(err_.fd.get(), EPOLLIN | EPOLLET, [self](uint32_t) {
      self->OnOutput(v1::OUTPUT_STREAM_STDERR);
    }));
  }
  return absl::OkStatus();
}

void Process::OnReports() {
  After after;
  MutexLock lock(mu_);
  if (empty_) {
    return;
  }
  if (!TakeReportsLocked(after)) {
    loop_.Unwatch(reaper_watch_);
    ReaperLostLocked();
  }
}

bool Process::TakeReportsLocked(After& after) {
  while (reaper_.socket.valid()) {
    Report report{};
    const ssize_t bytes = recv(reaper_.socket.get(), &report, sizeof report, MSG_DONTWAIT);
    if (bytes < 0 && errno == EINTR) {
      continue;
    }
    if (bytes < 0 && errno == EAGAIN) {
      return true;
    }
    if (bytes != sizeof report) {
      return false;
    }
    TakeReportLocked(report, after);
  }
  return true;
}

void Process::TakeReportLocked(const Report& report, After& after) {
  switch (report.kind) {
    case ReportKind::kReady:
      reaper_.pid = report.pid;
      return;
    case ReportKind::kStarted:
      pid_ = report.pid;
      started_ = true;
      for (const int number : std::exchange(early_signals_, {})) {
        SignalLocked(number).IgnoreError();
      }
      if (ladder_ == Ladder::kTerm) {
        TermLocked();  // the stop came before the command
      }
      WakeReaderLocked(after);
      return;
    case ReportKind::kFailed:
      StartFailedLocked(report, after);
      return;
    case ReportKind::kExited:
      MainExitedLocked(report.value);
      if (report.empty != 0 && options_.mark != 0) {
        OrphanedLocked(after);
      } else if (report.empty != 0) {
        EmptyLocked(after);
      }
      TryFinishLocked(after);
      return;
    case ReportKind::kEmpty:
      EmptyLocked(after);
      TryFinishLocked(after);
      return;
  }
}

void Process::StartFailedLocked(const Report& report, After& after) {
  const auto step = static_cast<v1::StartStep>(report.step);
  if (step == v1::START_STEP_FORK) {
    refusal_ = report.value == EAGAIN
                   ? absl::ResourceExhaustedError("the sandbox is at its process limit")
                   : ErrnoStatus(report.value, "make a process in the sandbox");
  }
  started_ = true;
  main_exited_ = true;
  ended_steady_ = std::chrono::steady_clock::now();
  v1::Exit exit;
  *exit.mutable_start_failure() =
      DescribeStartFailure(options_.spec, defaults_, step, report.value);
  FinishLocked(std::move(exit), after);
  if (report.pid < 0) {
    reaper_.socket.reset();  // it was the reaper that could not be forked
  }
  EmptyLocked(after);
}

void Process::MainExitedLocked(int status) {
  if (main_exited_) {
    return;
  }
  main_exited_ = true;
  started_ = true;
  wait_status_ = status;
  ended_steady_ = std::chrono::steady_clock::now();
  CancelTimerLocked(timeout_timer_);
}

void Process::OrphanedLocked(After& after) {
  loop_.Unwatch(std::exchange(reaper_watch_, 0));
  auto reaper = std::make_shared<Reaper>(std::exchange(reaper_, Reaper{}));
  after.Call(
      [self = shared_from_this(), reaper] { self->owner_.Orphaned(self, std::move(*reaper)); });
}

void Process::NoTrace() {
  After after;
  MutexLock lock(mu_);
  // Of a command that is being stopped the ladder finds out.
  if (!empty_ && ladder_ == Ladder::kNone) {
    EmptyLocked(after);
    TryFinishLocked(after);
  }
}

void Process::EmptyLocked(After& after) {
  if (empty_) {
    return;
  }
  empty_ = true;
  loop_.Unwatch(reaper_watch_);
  CancelTimerLocked(tick_timer_);
  if (forgotten_) {
    CloseSourceLocked(out_);
    CloseSourceLocked(err_);
  }
  // Shared only because a std::function has to be copyable.
  auto reaper = std::make_shared<Reaper>(std::exchange(reaper_, Reaper{}));
  after.Call(
      [self = shared_from_this(), reaper] { self->owner_.Emptied(self, std::move(*reaper)); });
  for (Done& done : std::exchange(stop_waiters_, {})) {
    after.Call([done = std::move(done)] { done(absl::OkStatus()); });
  }
}

void Process::ReaperLostLocked() {
  if (reaper_lost_ || empty_) {
    return;
  }
  reaper_lost_ = true;
  reaper_.socket.reset();
  if (ladder_ == Ladder::kAll) {
    return;  // it died of that, and EverythingDied will tell the rest
  }
  // Nobody can vouch for the subtree any more, so all that has no reaper is ended.
  if (pid_ > 0 && !main_exited_) {
    kill(-pid_, SIGKILL);
  }
  EnterSubtreeStepLocked(std::chrono::steady_clock::now());
}

void Process::TryFinishLocked(After& after) {
  if (exit_.has_value() || refusal_.has_value() || (!main_exited_ && !(reaper_lost_ && empty_))) {
    return;
  }
  if (ladder_ != Ladder::kNone && !empty_) {
    return;  // a command that was stopped has ended when nothing of it is left
  }
  ReadOutputLocked(kDrainBytes, /*force=*/true);
  const bool at_end = !out_.fd.valid() && !err_.fd.valid();
  if (!at_end && !drain_over_ && ladder_ == Ladder::kNone) {
    if (drain_timer_ == 0) {
      SetTimerLocked(drain_timer_, std::chrono::steady_clock::now() + kDrain,
                     &Process::OnDrainOver);
    }
    return;
  }
  v1::Exit exit;
  if (!main_exited_) {
    exit.set_lost(ladder_ == Ladder::kAll
                      ? "every process of the sandbox was ended, before this one's end was seen"
                      : "the process that watched over this command ended unexpectedly");
    ended_steady_ = std::chrono::steady_clock::now();
  } else if (WIFSIGNALED(wait_status_)) {
    exit.set_signal(WTERMSIG(wait_status_));
  } else {
    exit.set_code(WEXITSTATUS(wait_status_));
  }
  FinishLocked(std::move(exit), after);
}

void Process::FinishLocked(v1::Exit exit, After& after) {
  started_ =
      true;  // also if its reaper was lost before it could tell: a reader waits for this first
  exit.set_timed_out(timed_out_);
  exit.set_stopped(stopped_);
  exit.set_output_bytes(ring_.end());
  exit.set_kill_step(kill_step_);
  *exit.mutable_elapsed() = TimeUtil::NanosecondsToDuration(
      std::chrono::duration_cast<std::chrono::nanoseconds>(ended_steady_ - started_steady_)
          .count());
  exit_ = std::move(exit);
  read_to_ = ring_.end();
  CancelTimerLocked(timeout_timer_);
  CancelTimerLocked(drain_timer_);
  CancelTimerLocked(stall_timer_);
  CloseInputLocked(after);
  input_.clear();
  input_bytes_ = 0;
  for (std::function<void()>& room : std::exchange(room_waiters_, {})) {
    after.Call(std::move(room));
  }
  ResumeReadingLocked();  // for the background children that it may have left
  WakeReaderLocked(after);
  after.Call([self = shared_from_this()] { self->owner_.Ended(self); });
}

void Process::OnDrainOver() {
  After after;
  MutexLock lock(mu_);
  drain_timer_ = 0;
  drain_over_ = true;
  TryFinishLocked(after);
}

v1::ProcessInfo Process::InfoLocked() const {
  v1::ProcessInfo info;
  info.set_process_id(options_.id);
  *info.mutable_spec() = options_.spec;
  if (!exit_.has_value()) {
    info.set_pid(pid_);
  } else {
    *info.mutable_exit() = *exit_;
  }
  *info.mutable_started_at() = TimeUtil::NanosecondsToTimestamp(
      std::chrono::duration_cast<std::chrono::nanoseconds>(started_at_.time_since_epoch()).count());
  info.set_output_begin(ring_.begin());
  info.set_output_end(ring_.end());
  return info;
}

v1::ProcessInfo Process::Info() const {
  MutexLock lock(mu_);
  return InfoLocked();
}

pid_t Process::reaper_pid() const {
  MutexLock lock(mu_);
  return reaper_.pid;
}

bool Process::main_exited() const {
  MutexLock lock(mu_);
  return main_exited_;
}

pid_t Process::pid() const {
  MutexLock lock(mu_);
  return pid_;
}

uint64_t Process::output_cost() const {
  MutexLock lock(mu_);
  return ring_.cost();
}

bool Process::refused() const {
  MutexLock lock(mu_);
  return refusal_.has_value();
}

void Process::Abandon() {
  MutexLock lock(mu_);
  for (uint64_t* timer : {&timeout_timer_, &drain_timer_, &stall_timer_, &tick_timer_}) {
    CancelTimerLocked(*timer);
  }
  for (const uint64_t watch : {reaper_watch_, out_.watch, err_.watch, in_watch_}) {
    loop_.Unwatch(watch);
  }
  reader_.reset();
  room_waiters_.clear();
  stop_waiters_.clear();
}

void Process::SetTimerLocked(uint64_t& id, Deadline when, void (Process::*on_time)()) {
  CancelTimerLocked(id);
  id = loop_.At(when, [self = shared_from_this(), on_time] { (self.get()->*on_time)(); });
}

void Process::CancelTimerLocked(uint64_t& id) {
  if (id != 0) {
    loop_.CancelTimer(std::exchange(id, 0));
  }
}

}  // namespace creel::shim
