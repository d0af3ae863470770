#include "agent-shim/exec/process_table.h"

#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent-shim/exec/process_tree.h"

namespace creel::shim {
namespace {

constexpr std::chrono::milliseconds kClearingTick{2};
constexpr size_t kMaxId = 64;
// How long orphans are let die together before it is looked whose they were.
constexpr std::chrono::milliseconds kLookPause{100};
// After the last command the memory that it took is given back to the kernel.
constexpr std::chrono::seconds kQuiet{1};

absl::Status CheckId(const std::string& id) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  };
  if (id.empty() || id.size() > kMaxId || !std::all_of(id.begin(), id.end(), allowed)) {
    return absl::InvalidArgumentError(
        fmt::format("a process id is 1 to {} letters, digits, '-' and '_'", kMaxId));
  }
  return absl::OkStatus();
}

absl::Status CheckDurations(const v1::CommandSpec& spec) {
  const auto negative = [](const google::protobuf::Duration& duration) {
    return duration.seconds() < 0 || duration.nanos() < 0 ||
           duration.seconds() > 366LL * 24 * 3600 || duration.nanos() > 999'999'999;
  };
  if (negative(spec.timeout()) || negative(spec.grace())) {
    return absl::InvalidArgumentError("time-out and grace must lie between zero and a year");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessTable>> ProcessTable::Start(EventLoop& loop, Nursery& nursery,
                                                                  Options options) {
  // A command that does not read its stdin must not end the shim.
  signal(SIGPIPE, SIG_IGN);
  if (!nursery.subreapers() && !options.is_init) {
    return absl::FailedPreconditionError("without subreapers orphans must fall to this process");
  }
  std::unique_ptr<ProcessTable> table(new ProcessTable(loop, nursery, std::move(options)));
  if (table->options_.is_init) {
    RETURN_IF_ERROR(table->WatchOrphans());
  }
  return table;
}

ProcessTable::ProcessTable(EventLoop& loop, Nursery& nursery, Options options)
    : loop_(loop), nursery_(nursery), options_(std::move(options)) {}

ProcessTable::~ProcessTable() {
  std::set<std::shared_ptr<Process>> all;
  {
    MutexLock lock(mu_);
    loop_.Unwatch(child_watch_);
    loop_.CancelTimer(clearing_timer_);
    loop_.CancelTimer(quiet_timer_);
    loop_.CancelTimer(look_timer_);
    all = live_;
    for (const auto& [id, process] : by_id_) {
      all.insert(process);
    }
  }
  for (const std::shared_ptr<Process>& process : all) {
    process->Abandon();
  }
}

absl::StatusOr<std::shared_ptr<Process>> ProcessTable::Run(const v1::StartProcess& start) {
  RETURN_IF_ERROR(CheckId(start.process_id()));
  RETURN_IF_ERROR(CheckDurations(start.spec()));
  ASSIGN_OR_RETURN(LaunchOrder order, MakeLaunchOrder(start.spec(), options_.defaults));
  std::shared_ptr<Process> process;
  {
    MutexLock lock(mu_);
    if (by_id_.contains(start.process_id())) {
      return absl::AlreadyExistsError(fmt::format("process id '{}' is in use", start.process_id()));
    }
    if (live_.size() >= options_.max_running) {
      return absl::ResourceExhaustedError(
          fmt::format("{} commands run in the sandbox, which is its limit", live_.size()));
    }
    order.header.mark = nursery_.subreapers() ? 0 : TakeMarkLocked();
    process = std::make_shared<Process>(loop_, options_.defaults, *this,
                                        Process::Options{.id = start.process_id(),
                                                         .spec = start.spec(),
                                                         .ring_bytes = options_.ring_bytes,
                                                         .mark = order.header.mark});
    // Under the lock, so that a KillEverything comes wholly before or after the launch.
    if (clearing_) {
      waiting_.push_back({process, std::move(order)});
    } else {
      RETURN_IF_ERROR(process->Launch(std::move(order), nursery_));
      live_.insert(process);
    }
    by_id_[process->id()] = process;
  }
  nursery_.Refill();
  return process;
}

std::shared_ptr<Process> ProcessTable::Find(const std::string& id) const {
  MutexLock lock(mu_);
  auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

std::vector<v1::ProcessInfo> ProcessTable::List() const {
  std::vector<v1::ProcessInfo> infos;
  {
    MutexLock lock(mu_);
    infos.reserve(by_id_.size());
    for (const auto& [id, process] : by_id_) {
      infos.push_back(process->Info());
    }
  }
  const auto earlier = [](const v1::ProcessInfo& a, const v1::ProcessInfo& b) {
    return std::pair(a.started_at().seconds(), a.started_at().nanos()) <
           std::pair(b.started_at().seconds(), b.started_at().nanos());
  };
  std::sort(infos.begin(), infos.end(), earlier);
  return infos;
}

void ProcessTable::Ended(const std::shared_ptr<Process>& process) {
  After after;
  MutexLock lock(mu_);
  auto found = by_id_.find(process->id());
  if (found == by_id_.end() || found->second != process) {
    return;
  }
  if (process->refused()) {
    by_id_.erase(found);
    return;
  }
  ended_.push_back(process);
  ForgetLocked(after);
}

void ProcessTable::ForgetLocked(After& after) {
  uint64_t bytes = 0;
  for (const std::shared_ptr<Process>& process : ended_) {
    bytes += process->output_cost();
  }
  while (ended_.size() > options_.remembered) {
    const std::shared_ptr<Process> oldest = ended_.front();
    bytes -= std::min(bytes, oldest->output_cost());
    by_id_.erase(oldest->id());
    ended_.pop_front();
    after.Call([oldest] { oldest->DropOutput(); });
  }
  for (auto process = ended_.begin(); process != ended_.end() && bytes > options_.remembered_bytes;
       ++process) {
    bytes -= std::min(bytes, (*process)->output_cost());
    after.Call([oldest = *process] { oldest->DropOutput(); });
  }
}

void ProcessTable::Emptied(const std::shared_ptr<Process>& process, Reaper reaper) {
  {
    MutexLock lock(mu_);
    live_.erase(process);
    if (live_.empty() && quiet_timer_ == 0) {
      quiet_timer_ = loop_.At(std::chrono::steady_clock::now() + kQuiet, [this] { OnQuiet(); });
    }
  }
  if (reaper.socket.valid()) {
    nursery_.Return(std::move(reaper));
  }
}

void ProcessTable::OnQuiet() {
  {
    MutexLock lock(mu_);
    quiet_timer_ = 0;
    if (!live_.empty()) {
      return;  // the last of them will come by here again
    }
  }
  malloc_trim(0);
}

Found ProcessTable::KillStrays(gid_t mark) {
  if (!options_.is_init) {
    return {};
  }
  MutexLock lock(mu_);
  ReapOrphansLocked();
  if (mark != 0) {
    return KillMarkedLocked(mark);
  }
  // All reapers are below the nursery, unless it has died; then they are PID 1's own children.
  std::set<pid_t> spared{nursery_.pid()};
  for (const std::shared_ptr<Process>& process : live_) {
    spared.insert(process->reaper_pid());
  }
  spared.erase(0);
  Found found{.killed = KillDescendants(getpid(), spared)};
  found.clean = found.killed.empty();
  return found;
}

// The lock keeps orphans from being reaped meanwhile, on which the completeness of the list stands.
Found ProcessTable::KillMarkedLocked(gid_t mark) {
  const pid_t nursery = nursery_.pid();
  std::set<gid_t> others;
  std::set<pid_t> reapers;
  for (const std::shared_ptr<Process>& process : live_) {
    others.insert(process->mark());
    reapers.insert(process->reaper_pid());
  }
  others.erase(mark);
  reapers.erase(0);
  const std::vector<MarkedProcess> list = ListMarked();
  for (const MarkedProcess& each : list) {
    if (each.parent == nursery) {
      reapers.insert(each.pid);
    }
  }
  Found found;
  for (const MarkedProcess& each : list) {
    // The last: a command on its way, that has not taken its identity yet.
    const bool own = each.pid == getpid() || each.pid == nursery || reapers.contains(each.pid) ||
                     (each.mark == 0 && reapers.contains(each.parent));
    // A zombie that somebody else has to reap tells nothing that its parent does not.
    const bool idle = each.zombie && each.parent != getpid();
    if (own || idle || others.contains(each.mark)) {
      continue;
    }
    found.clean = false;
    if (!each.zombie) {
      kill(each.pid, SIGKILL);
      found.killed.push_back(each.pid);
    }
  }
  return found;
}

gid_t ProcessTable::TakeMarkLocked() {
  const auto taken = [this](gid_t mark) {
    return std::any_of(live_.begin(), live_.end(),
                       [mark](const auto& process) { return process->mark() == mark; });
  };
  // There are far more marks than commands may run.
  do {
    next_mark_ = NextMark(next_mark_);
  } while (taken(next_mark_));
  return next_mark_;
}

void ProcessTable::Orphaned(const std::shared_ptr<Process>& /*process*/, Reaper reaper) {
  if (reaper.socket.valid()) {
    nursery_.Return(std::move(reaper));
  }
  MutexLock lock(mu_);
  LookLaterLocked({});
}

void ProcessTable::LookLaterLocked(std::chrono::nanoseconds pause) {
  if (look_timer_ == 0) {
    look_timer_ = loop_.At(std::chrono::steady_clock::now() + pause, [this] { OnLook(); });
  }
}

void ProcessTable::OnLook() {
  std::vector<std::shared_ptr<Process>> ended;
  {
    MutexLock lock(mu_);
    look_timer_ = 0;
    ReapOrphansLocked();
    for (const std::shared_ptr<Process>& process : live_) {
      if (process->main_exited()) {
        ended.push_back(process);
      }
    }
    std::set<gid_t> found;
    if (!ended.empty()) {
      for (const MarkedProcess& each : ListMarked()) {
        found.insert(each.mark);
      }
    }
    std::erase_if(ended, [&found](const auto& process) { return found.contains(process->mark()); });
  }
  for (const std::shared_ptr<Process>& process : ended) {
    process->NoTrace();
  }
}

void ProcessTable::KillAll(std::function<void()> done) {
  {
    MutexLock lock(mu_);
    cleared_waiters_.push_back(std::move(done));
  }
  KillEverything();
}

void ProcessTable::KillEverything() {
  MutexLock lock(mu_);
  if (clearing_) {
    return;
  }
  clearing_ = true;
  orphan_statuses_.clear();
  for (const std::shared_ptr<Process>& process : live_) {
    process->EverythingDies();
  }
  if (options_.is_init) {
    kill(-1, SIGKILL);
  }
  clearing_timer_ = loop_.At(std::chrono::steady_clock::now(), [this] { OnClearing(); });
}

void ProcessTable::OnClearing() {
  {
    MutexLock lock(mu_);
    if (!AllDeadLocked()) {
      clearing_timer_ =
          loop_.At(std::chrono::steady_clock::now() + kClearingTick, [this] { OnClearing(); });
      return;
    }
  }
  Cleared();
}

bool ProcessTable::AllDeadLocked() {
  if (options_.is_init) {
    ReapOrphansLocked();
    // No such process: there is none but PID 1, not even one that is waiting to be reaped.
    const bool none = kill(-1, SIGKILL) != 0 && errno == ESRCH;
    ReapOrphansLocked();
    return none;
  }
  bool left = false;
  for (const std::shared_ptr<Process>& process : live_) {
    const pid_t reaper = process->reaper_pid();
    if (reaper > 0) {
      KillDescendants(reaper);
    }
    left = true;  // until its reaper tells that it is empty
  }
  return !left;
}

void ProcessTable::Cleared() {
  std::vector<std::shared_ptr<Process>> dead;
  std::vector<std::function<void()>> waiters;
  std::vector<std::shared_ptr<Process>> failed;
  std::map<pid_t, int> statuses;
  {
    MutexLock lock(mu_);
    statuses = std::exchange(orphan_statuses_, {});
    dead.assign(live_.begin(), live_.end());
  }
  for (const std::shared_ptr<Process>& process : dead) {
    process->EverythingDied(statuses);
  }
  {
    MutexLock lock(mu_);
    if (options_.is_init) {
      // If that fails now it is tried again at the next launch.
      nursery_.Restart().IgnoreError();
    }
    clearing_ = false;
    clearing_timer_ = 0;
    for (Waiting& waiting : std::exchange(waiting_, {})) {
      if (waiting.process->Launch(std::move(waiting.order), nursery_).ok()) {
        live_.insert(waiting.process);
      } else {
        failed.push_back(waiting.process);
        by_id_.erase(waiting.process->id());
      }
    }
    waiters = std::exchange(cleared_waiters_, {});
  }
  for (const std::shared_ptr<Process>& process : failed) {
    process->WakeReader();
  }
  for (const std::function<void()>& waiter : waiters) {
    waiter();
  }
}

absl::Status ProcessTable::WatchOrphans() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  child_signals_.reset(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!child_signals_.valid()) {
    return ErrnoStatus(errno, "make a signalfd");
  }
  ASSIGN_OR_RETURN(child_watch_,
                   loop_.Watch(child_signals_.get(), EPOLLIN, [this](uint32_t) { OnOrphans(); }));
  MutexLock lock(mu_);
  ReapOrphansLocked();
  return absl::OkStatus();
}

void ProcessTable::OnOrphans() {
  signalfd_siginfo info;
  while (read(child_signals_.get(), &info, sizeof info) == sizeof info) {
  }
  MutexLock lock(mu_);
  ReapOrphansLocked();
  // The last of an ended command's processes is always PID 1's child.
  if (!nursery_.subreapers() && !live_.empty()) {
    LookLaterLocked(kLookPause);
  }
}

void ProcessTable::ReapOrphansLocked() {
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, __WALL | WNOHANG);
    if (pid < 0 && errno == EINTR) {
      continue;
    }
    if (pid <= 0) {
      return;
    }
    if (clearing_) {
      orphan_statuses_[pid] = status;
    }
  }
}

}  // namespace creel::shim
