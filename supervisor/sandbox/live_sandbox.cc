#include "supervisor/sandbox/live_sandbox.h"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/events.h"
#include "supervisor/base/escape.h"
#include "supervisor/sandbox/container_check.h"
#include "supervisor/sandbox/container_spec.h"
#include "supervisor/sandbox/dir_tree.h"
#include "supervisor/sandbox/workspace_watch.h"

namespace creel {
namespace {

using std::chrono::milliseconds;

constexpr size_t kDroppedKept = 64;
// A waiting call is to end within a second of what happened, with the cause.
constexpr milliseconds kCauseTime{700};
// A shim that lives calls again at once; one that does not in this time will not.
constexpr milliseconds kComeBackTime{10'000};
constexpr milliseconds kLookAgain{1'000};
constexpr milliseconds kListTime{5'000};
constexpr milliseconds kFreezeTime{3'000};
constexpr uint64_t kMaxEntriesCounted = 200'000;
constexpr uint64_t kMaxProcessesAdopted = 1'024;

bool PidIsOurs(const HostAbilities& abilities, const SandboxIdentity& identity) {
  return abilities.root && !abilities.engine_elsewhere &&
         KindOfRuntime(identity.runtime.empty() ? abilities.default_runtime : identity.runtime) ==
             RuntimeKind::kNative;
}

bool UidsAreOurs(const HostAbilities& abilities, const SandboxIdentity& identity) {
  return !abilities.rootless_engine && !abilities.userns_remap && !abilities.engine_elsewhere &&
         KindOfRuntime(identity.runtime.empty() ? abilities.default_runtime : identity.runtime) ==
             RuntimeKind::kNative;
}

}  // namespace

LiveSandbox::LiveSandbox(const Host& host, SandboxIdentity identity, bool first, bool ahead)
    : host_(host),
      identity_(std::move(identity)),
      paths_(SandboxPaths::For(host.config.paths, identity_.id)),
      processes_(
          {.spool_dir = SpoolDir(host.config.paths), .spool_bytes = identity_.limits.spool_bytes}),
      happened_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      pause_(host.engine, host.abilities, paths_.idle),
      ahead_(ahead),
      adopt_(!first) {}

LiveSandbox::~LiveSandbox() {
  StopWatching();
  Detach();
  TellWaiters(absl::UnavailableError("the supervisor let go of the sandbox"));
}

absl::Status LiveSandbox::Listen() {
  if (!happened_.valid()) {
    return ErrnoStatus(EMFILE, "make an eventfd");
  }
  ShimLink::Options options;
  options.directory = paths_.link_dir;
  options.sandbox_id = identity_.id;
  options.key = identity_.key;
  {
    MutexLock lock(mu_);
    options.first = !adopt_;
    options.ahead = ahead_;
  }
  if (!options.ahead) {
    options.setup = MakeSetup(identity_, host_.config);
    RETURN_IF_ERROR(OpenWayOut());
  }
  const Peer who = PeerOf();
  options.peer_uid = who.uid;
  options.expected_pid = who.pid;
  options.socket_mode = who.socket_mode;
  ShimLink::Callbacks callbacks;
  callbacks.on_up = [this](StubPtr stub, const std::string& version) {
    OnUp(std::move(stub), version);
  };
  callbacks.on_down = [this](const absl::Status& why) { OnDown(why); };
  callbacks.on_waiting = [this](bool here) {
    {
      MutexLock lock(mu_);
      waiting_ = here;
    }
    Wake();
  };
  callbacks.on_dropped = [this](const DroppedPeer& peer) {
    {
      MutexLock lock(mu_);
      dropped_.push_back(peer);
      if (dropped_.size() > kDroppedKept) {
        dropped_.pop_front();
      }
    }
    // Any process inside can make this happen as often as it likes.
    if (uint64_t left_out = 0; host_.audit != nullptr && drops_told_.Allow(left_out)) {
      host_.audit->Keep(PeerDropped("shim.sock", {.sandbox = identity_.id}, peer.reason)
                            .Number("left_out", static_cast<int64_t>(left_out)));
    }
  };
  ASSIGN_OR_RETURN(link_, ShimLink::Listen(host_.links, std::move(options), std::move(callbacks)));
  return absl::OkStatus();
}

LiveSandbox::Peer LiveSandbox::PeerOf() const {
  Peer peer;
  if (UidsAreOurs(host_.abilities, identity_)) {
    peer.uid = 0;
  }
  if (PidIsOurs(host_.abilities, identity_)) {
    peer.pid = [pid = pid_] { return pid->load(); };
  }
  if (!host_.abilities.root || !UidsAreOurs(host_.abilities, identity_)) {
    // PID 1 is not the socket's owner as the kernel sees it, and has no right to override modes.
    // The folder above is closed to everybody else on the host.
    peer.socket_mode = 0666;
  }
  return peer;
}

absl::Status LiveSandbox::OpenWayOut() {
  if (host_.open_egress) {
    const Peer peer = PeerOf();
    ASSIGN_OR_RETURN(egress_, host_.open_egress({.directory = paths_.link_dir,
                                                 .sandbox_id = identity_.id,
                                                 .socket_mode = peer.socket_mode,
                                                 .peer_uid = peer.uid,
                                                 .peer_pid = peer.pid}));
  }
  return absl::OkStatus();
}

bool LiveSandbox::waiting() const {
  MutexLock lock(mu_);
  return waiting_ && state_ == SandboxState::kRunning;
}

absl::Status LiveSandbox::Begin(const SandboxIdentity& identity, Deadline deadline) {
  // Its id is being read by callbacks, and is the same.
  identity_.tool_uid = identity.tool_uid;
  identity_.tool_gid = identity.tool_gid;
  identity_.workspace = identity.workspace;
  identity_.access = identity.access;
  identity_.env = identity.env;
  identity_.limits = identity.limits;
  identity_.workspace_bound = identity.workspace_bound;
  RETURN_IF_ERROR(OpenWayOut());
  {
    MutexLock lock(mu_);
    ahead_ = false;
  }
  link_->Begin(MakeSetup(identity_, host_.config));
  return WaitForLink(deadline);
}

void LiveSandbox::SetContainer(const ContainerInfo& info) {
  pid_->store(SeesProcessOf(info) ? info.pid : 0);
}

absl::Status LiveSandbox::WaitForLink(Deadline deadline) {
  const int pid = pid_->load();
  const UniqueFd process(pid > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : -1);
  bool ended = pid > 0 && !process.valid() && errno == ESRCH;
  for (;;) {
    {
      MutexLock lock(mu_);
      if (stub_ != nullptr || (ahead_ && waiting_)) {
        return absl::OkStatus();
      }
      if (state_ != SandboxState::kRunning) {
        return absl::UnavailableError(reason_);
      }
    }
    const auto now = std::chrono::steady_clock::now();
    if (ended || !process.valid()) {
      if (const std::string cause = CauseOfEnd(); !cause.empty()) {
        return absl::UnavailableError(cause);
      }
      ended = false;
    }
    if (now >= deadline) {
      std::string refused;
      MutexLock lock(mu_);
      if (!dropped_.empty()) {
        refused = fmt::format("; the last peer was refused: {}", dropped_.back().reason);
      }
      return absl::DeadlineExceededError(
          fmt::format("the shim in container '{}' has not called in time{}",
                      ContainerName(identity_.id), refused));
    }
    auto left = std::chrono::duration_cast<milliseconds>(deadline - now) + milliseconds(1);
    if (!process.valid()) {
      left = std::min(left, milliseconds(250));
    }
    struct pollfd waits[2] = {{.fd = happened_.get(), .events = POLLIN, .revents = 0},
                              {.fd = process.get(), .events = POLLIN, .revents = 0}};
    (void)::poll(waits, process.valid() ? 2 : 1,
                 static_cast<int>(std::min<int64_t>(left.count(), 60'000)));
    uint64_t count = 0;
    (void)!::read(happened_.get(), &count, sizeof count);
    ended = process.valid() && (waits[1].revents & POLLIN) != 0;
  }
}

void LiveSandbox::Wake() {
  const uint64_t one = 1;
  (void)!::write(happened_.get(), &one, sizeof one);
}

void LiveSandbox::OnUp(StubPtr stub, const std::string& version) {
  bool adopt = false;
  {
    MutexLock lock(mu_);
    version_ = version;
    adopt = adopt_;
    if (!adopt) {
      stub_ = stub;
      down_reason_.clear();
      changed_.SignalAll();
    }
  }
  if (adopt) {
    AskForProcesses(std::move(stub));
    return;
  }
  processes_.Resume(std::move(stub));
  Wake();
}

void LiveSandbox::AskForProcesses(StubPtr stub) {
  struct Call {
    grpc::ClientContext context;
    shim::v1::ListProcessesRequest request;
    shim::v1::ListProcessesResponse response;
  };
  auto call = std::make_shared<Call>();
  call->context.set_deadline(std::chrono::system_clock::now() + kListTime);
  {
    MutexLock lock(mu_);
    if (detached_) {
      return;
    }
    ++asking_;
  }
  stub->async()->ListProcesses(
      &call->context, &call->request, &call->response,
      [this, call, stub](const grpc::Status& status) {
        // Nobody but this holds the sandbox any more: it is being destroyed, and waits for us.
        const std::shared_ptr<LiveSandbox> self = weak_from_this().lock();
        if (status.ok() && self != nullptr) {
          TakeOver(stub, call->response);
        }
        {
          MutexLock lock(mu_);
          --asking_;
          changed_.SignalAll();
        }
        if (!status.ok() && self != nullptr) {
          Lose(fmt::format("the shim of container '{}' did not list its commands: {}",
                           ContainerName(identity_.id), Printable(status.error_message(), 256)));
        }
      });
}

void LiveSandbox::TakeOver(StubPtr stub, const shim::v1::ListProcessesResponse& answer) {
  uint64_t taken = 0;
  for (const shim::v1::ProcessInfo& info : answer.processes()) {
    if (++taken > kMaxProcessesAdopted) {
      break;
    }
    processes_.Adopt(stub, info);
  }
  {
    MutexLock lock(mu_);
    adopt_ = false;
    stub_ = std::move(stub);
    down_reason_.clear();
    changed_.SignalAll();
  }
  Wake();
}

void LiveSandbox::OnDown(const absl::Status& why) {
  std::thread done;
  {
    MutexLock lock(mu_);
    stub_.reset();
    down_reason_ = why.ok() ? "its shim hung up"
                            : fmt::format("the link to its shim broke: {}",
                                          Printable(std::string(why.message()), 512));
    changed_.SignalAll();
    if (detached_ || finding_ || state_ == SandboxState::kLost || state_ == SandboxState::kClosed) {
      return;
    }
    finding_ = true;
    done = std::exchange(finder_, std::thread([this, why] { FindCause(why); }));
  }
  // The one before has said that it is at its end.
  if (done.joinable()) {
    done.join();
  }
}

std::string LiveSandbox::CauseOfEnd() {
  const std::string name = ContainerName(identity_.id);
  // The engine hears of an end, and how it was, a little later than the kernel.
  constexpr int kLooks = 6;
  constexpr std::chrono::milliseconds kBetween{50};
  for (int look = 1;; ++look) {
    auto info = host_.engine.InspectContainer(
        identity_.container_id.empty() ? name : identity_.container_id, After(kCauseTime));
    if (info.status().code() == absl::StatusCode::kNotFound ||
        (info.ok() && info->state == ContainerState::kRemoving)) {
      return fmt::format("container '{}' was removed", name);
    }
    if (info.ok() &&
        (info->state == ContainerState::kExited || info->state == ContainerState::kDead)) {
      return fmt::format("container '{}' ended with exit code {}{}{}", name, info->exit_code,
                         info->oom_killed ? " (out of memory)" : "",
                         info->error.empty() ? std::string() : ": " + Printable(info->error, 1024));
    }
    const int pid = pid_->load();
    if (pid <= 0 || ::access(fmt::format("/proc/{}", pid).c_str(), F_OK) == 0) {
      return {};
    }
    if (!info.ok()) {
      return fmt::format("container '{}' ended, and the engine does not answer: {}", name,
                         std::string(info.status().message()));
    }
    if (look == kLooks) {
      return fmt::format("container '{}' ended", name);
    }
    std::this_thread::sleep_for(kBetween);
  }
}

void LiveSandbox::FindCause(const absl::Status& why) {
  pthread_setname_np(pthread_self(), "find-cause");
  const Deadline give_up = After(kComeBackTime);
  std::string cause;
  for (;;) {
    cause = CauseOfEnd();
    MutexLock lock(mu_);
    const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return detached_ || stub_ != nullptr || state_ == SandboxState::kClosed ||
             state_ == SandboxState::kLost;
    };
    if (!cause.empty() || settled()) {
      break;
    }
    if (state_ == SandboxState::kFrozen) {
      // A frozen shim calls again once it is thawed.
      break;
    }
    if (std::chrono::steady_clock::now() >= give_up) {
      cause = fmt::format(
          "the shim of container '{}' {} and did not call again", ContainerName(identity_.id),
          why.ok()
              ? "hung up"
              : fmt::format("broke its link ({})", Printable(std::string(why.message()), 512)));
      break;
    }
    const Deadline look_again = std::min(give_up, After(kLookAgain));
    while (!settled() && std::chrono::steady_clock::now() < look_again) {
      (void)changed_.WaitUntil(mu_, look_again);
    }
    if (settled()) {
      break;
    }
  }
  // Without one the sandbox is being destroyed, which waits for this thread. With it this may be
  // the last reference, and the destructor then runs at the end of this function.
  const std::shared_ptr<LiveSandbox> self = weak_from_this().lock();
  bool lose = false;
  {
    MutexLock lock(mu_);
    lose = !cause.empty() && !detached_ && stub_ == nullptr && self != nullptr;
  }
  if (lose) {
    Lose(cause);
  }
  {
    MutexLock lock(mu_);
    finding_ = false;
  }
}

void LiveSandbox::Lose(const std::string& why) {
  {
    MutexLock lock(mu_);
    if (state_ == SandboxState::kLost || state_ == SandboxState::kClosed) {
      return;
    }
    state_ = SandboxState::kLost;
    reason_ = why;
    stub_.reset();
    changed_.SignalAll();
  }
  processes_.LoseAll(why);
  TellWaiters(absl::UnavailableError(why));
  Wake();
}

void LiveSandbox::ContainerGone(const std::string& why) { Lose(why); }

void LiveSandbox::TellWaiters(const absl::Status& why) {
  std::map<uint64_t, LostCallback> callbacks;
  {
    MutexLock lock(waiters_->mu);
    callbacks.swap(waiters_->callbacks);
  }
  for (auto& [id, callback] : callbacks) {
    callback(why);
  }
}

std::shared_ptr<void> LiveSandbox::OnLost(LostCallback callback) {
  uint64_t id = 0;
  {
    MutexLock lock(waiters_->mu);
    id = waiters_->next++;
    waiters_->callbacks.emplace(id, std::move(callback));
  }
  std::shared_ptr<void> registration(static_cast<void*>(nullptr), [waiters = waiters_, id](void*) {
    LostCallback gone;
    MutexLock lock(waiters->mu);
    const auto found = waiters->callbacks.find(id);
    if (found != waiters->callbacks.end()) {
      gone = std::move(found->second);
      waiters->callbacks.erase(found);
    }
  });
  // Whoever changes the state tells the waiters afterwards, so none is missed.
  absl::Status over;
  {
    MutexLock lock(mu_);
    if (state_ == SandboxState::kFrozen) {
      over = absl::FailedPreconditionError(fmt::format("the sandbox is frozen: {}", reason_));
    } else if (state_ != SandboxState::kRunning) {
      over = absl::UnavailableError(reason_);
    }
  }
  if (!over.ok()) {
    TellWaiters(over);
  }
  return registration;
}

SandboxState LiveSandbox::state() const {
  MutexLock lock(mu_);
  return state_;
}

std::string LiveSandbox::reason() const {
  MutexLock lock(mu_);
  return state_ == SandboxState::kRunning ? std::string() : reason_;
}

absl::StatusOr<std::shared_ptr<shim::v1::Shim::StubInterface>> LiveSandbox::shim() {
  asked_at_.store(std::chrono::steady_clock::now().time_since_epoch().count());
  if (pause_.paused()) {
    // Those who hold a lease have seen to that before, on a thread that may wait.
    RETURN_IF_ERROR(Annotate(Resume(After(kFreezeTime)), "the sandbox was paused while idle"));
  }
  MutexLock lock(mu_);
  switch (state_) {
    case SandboxState::kRunning:
      break;
    case SandboxState::kFrozen:
      return absl::FailedPreconditionError(fmt::format(
          "the sandbox is frozen: {}; thaw it with 'creel thaw' once that is settled", reason_));
    case SandboxState::kLost:
    case SandboxState::kClosed:
      return absl::UnavailableError(reason_);
  }
  if (stub_ == nullptr) {
    return absl::UnavailableError(fmt::format("container '{}' cannot be reached: {}",
                                              ContainerName(identity_.id), down_reason_));
  }
  return stub_;
}

void LiveSandbox::WatchWorkspace() {
  if (identity_.workspace_bound != "watched") {
    return;
  }
  const bool own = identity_.workspace.empty() || identity_.access == WorkspaceAccess::kNone;
  std::shared_ptr<void> watch = WorkspaceWatch::Shared().Watch({
      .folder = own ? paths_.folder : identity_.workspace,
      .limit_bytes = identity_.limits.workspace_bytes,
      .grown = !own,
      .floor_bytes = identity_.limits.free_space_floor_bytes / 2,
      .over =
          [weak = weak_from_this()](const std::string& why) {
            const std::shared_ptr<LiveSandbox> self = weak.lock();
            if (self != nullptr && self->state() == SandboxState::kRunning) {
              // If it cannot be frozen, the next look tries again.
              (void)self->Freeze(why, After(kFreezeTime));
            }
          },
  });
  MutexLock lock(mu_);
  watch_ = std::move(watch);
}

void LiveSandbox::StopWatching() {
  std::shared_ptr<void> watch;
  {
    MutexLock lock(mu_);
    watch = std::move(watch_);
  }
  watch.reset();
}

absl::Status LiveSandbox::Close(Deadline deadline) {
  StopWatching();
  MutexLock change(change_mu_);
  constexpr char kWhy[] = "the sandbox was closed";
  {
    MutexLock lock(mu_);
    state_ = SandboxState::kClosed;
    reason_ = kWhy;
    stub_.reset();
    changed_.SignalAll();
  }
  TellWaiters(absl::UnavailableError(kWhy));
  processes_.LoseAll(kWhy);
  Detach();
  if (pause_.paused()) {
    // A signal waits at the door of what stands still.
    (void)pause_.Resume(identity_.container_id, pid_->load(), deadline);
  }
  return Remove(host_, identity_, deadline);
}

void LiveSandbox::Detach() {
  {
    MutexLock lock(mu_);
    detached_ = true;
    changed_.SignalAll();
  }
  // Callbacks take mu_, so not under it.
  link_.reset();
  egress_.reset();
  std::thread finder;
  {
    MutexLock lock(mu_);
    finder = std::move(finder_);
    while (asking_ > 0) {
      changed_.Wait(mu_);
    }
  }
  if (finder.get_id() == std::this_thread::get_id()) {
    finder.detach();  // it held the last reference, and ends with it
  } else if (finder.joinable()) {
    finder.join();
  }
}

std::string LiveSandbox::freeze_warning() const {
  MutexLock lock(mu_);
  return freeze_warning_;
}

std::string LiveSandbox::shim_version() const {
  MutexLock lock(mu_);
  return version_;
}

std::vector<DroppedPeer> LiveSandbox::dropped_peers() const {
  MutexLock lock(mu_);
  return {dropped_.begin(), dropped_.end()};
}

uint64_t LiveSandbox::WorkspaceUsed() const {
  if (identity_.workspace_bound == "sized") {
    auto info = host_.engine.InspectContainer(identity_.container_id, After(kCauseTime));
    return info.ok() ? BytesUsedAt(*info, host_.config.sandbox.workdir) : 0;
  }
  if (identity_.workspace.empty() || identity_.access == WorkspaceAccess::kNone) {
    return TreeBytes(paths_.folder, kMaxEntriesCounted);
  }
  return identity_.access == WorkspaceAccess::kReadWrite
             ? TreeBytes(identity_.workspace, kMaxEntriesCounted)
             : 0;
}

std::vector<BindMount> LiveSandbox::mounts() const {
  const bool own = identity_.workspace.empty() || identity_.access == WorkspaceAccess::kNone;
  const std::string source = !own                                   ? identity_.workspace
                             : identity_.workspace_bound == "sized" ? paths_.image
                                                                    : paths_.folder;
  return {{.source = source,
           .target = host_.config.sandbox.workdir,
           .read_only = !own && identity_.access == WorkspaceAccess::kReadOnly},
          {.source = paths_.link_dir, .target = "/run/creel"},
          {.source = host_.shim_path.substr(0, host_.shim_path.rfind('/')), .target = "/.creel"}};
}

}  // namespace creel
