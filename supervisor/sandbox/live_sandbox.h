#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/audit/event_limiter.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/freezer.h"
#include "supervisor/sandbox/idle_pause.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/sandbox/sandbox_paths.h"

namespace creel {

// The Sandbox behind sandbox.h: a container that was made or adopted, with its link and processes.
class LiveSandbox final : public Sandbox, public std::enable_shared_from_this<LiveSandbox> {
 public:
  // `paths` and `identity` as the container was made; `first` and `ahead` as in ShimLink.
  LiveSandbox(const Host& host, SandboxIdentity identity, bool first, bool ahead = false);
  ~LiveSandbox() override;

  // Begins to listen; before the container runs.
  absl::Status Listen();
  // Tells which container it is.
  void SetContainer(const ContainerInfo& info);
  // Waits until the shim has called, or the container has ended, which the message then tells.
  //   kUnavailable       the container ended
  //   kDeadlineExceeded  the shim has not called
  // One that was made ahead is waited for only until it is there to be begun with.
  absl::Status WaitForLink(Deadline deadline);
  // Of one that was made ahead: the shim is there, and waits.
  [[nodiscard]] bool waiting() const;
  // Of one that was made ahead: from here on it is `identity`'s, which has the same id. Opens the
  // way out, hands the shim its key and setup, and waits for its answer.
  absl::Status Begin(const SandboxIdentity& identity, Deadline deadline);
  // Fills in what Create found out.
  void SetIdentity(const SandboxIdentity& identity) { identity_ = identity; }
  // Begins to look at a workspace that has no size of its own.
  void WatchWorkspace();
  // It was frozen before a restart, and is.
  void SetFrozen(const Hold& hold);

  [[nodiscard]] const SandboxIdentity& identity() const override { return identity_; }
  [[nodiscard]] SandboxState state() const override;
  [[nodiscard]] std::string reason() const override;
  absl::StatusOr<std::shared_ptr<shim::v1::Shim::StubInterface>> shim() override;
  ProcessTable& processes() override { return processes_; }
  absl::StatusOr<std::string> Freeze(const std::string& reason, Deadline deadline) override;
  absl::StatusOr<std::string> FreezeQuickly(const std::string& reason, Deadline deadline) override;
  absl::Status Thaw(Deadline deadline) override;
  absl::StatusOr<bool> PauseIdle(const std::function<bool()>& idle, bool with_running,
                                 Deadline deadline) override;
  [[nodiscard]] bool paused() const override { return pause_.paused(); }
  absl::Status Resume(Deadline deadline) override;
  absl::Status SettleResume(Deadline deadline) override;
  [[nodiscard]] bool unsettled() const override { return pause_.unsettled(); }
  absl::Status Close(Deadline deadline) override;
  void ContainerGone(const std::string& why) override;
  std::shared_ptr<void> OnLost(LostCallback callback) override;
  [[nodiscard]] std::string freeze_warning() const override;
  [[nodiscard]] std::string shim_version() const override;
  [[nodiscard]] std::vector<DroppedPeer> dropped_peers() const override;
  [[nodiscard]] uint64_t WorkspaceUsed() const override;
  [[nodiscard]] std::vector<BindMount> mounts() const override;

  // Ends the link, and returns when nothing of ours runs any more. The container is left as it is.
  void Detach();

 private:
  absl::StatusOr<std::string> FreezeBy(const std::string& reason, bool quickly, Deadline deadline);
  // Who may connect from inside, and how that is made sure.
  struct Peer {
    std::optional<uint32_t> uid;
    std::function<int()> pid;
    uint32_t socket_mode = 0600;
  };
  [[nodiscard]] Peer PeerOf() const;
  absl::Status OpenWayOut();
  // What PauseIdle's caller cannot see of its being in use.
  bool InUse(bool with_running);

  using StubPtr = std::shared_ptr<shim::v1::Shim::StubInterface>;
  // Those who wait for the end of this sandbox. Outlives it, as registrations do.
  struct Waiters {
    Mutex mu;
    uint64_t next ABSL_GUARDED_BY(mu) = 0;
    std::map<uint64_t, LostCallback> callbacks ABSL_GUARDED_BY(mu);
  };

  void OnUp(StubPtr stub, const std::string& version);
  void OnDown(const absl::Status& why);
  // Asks for the commands of an adopted sandbox; goes on with TakeOver.
  void AskForProcesses(StubPtr stub);
  void TakeOver(StubPtr stub, const shim::v1::ListProcessesResponse& answer);
  // Finds out why the link broke, and gives the sandbox up if it does not come back.
  void FindCause(const absl::Status& why);
  // What the engine says of the end of the container; empty: it runs.
  std::string CauseOfEnd();
  // Whoever waits may let go of the last reference: not to be called without one.
  void Lose(const std::string& why);
  void StopWatching();
  void TellWaiters(const absl::Status& why);
  void Wake();

  const Host& host_;
  SandboxIdentity identity_;
  const SandboxPaths paths_;
  ProcessTable processes_;
  const std::shared_ptr<Waiters> waiters_ = std::make_shared<Waiters>();
  // Readable once something happened that WaitForLink waits for.
  UniqueFd happened_;
  // Shared with what may outlive this.
  const std::shared_ptr<std::atomic<int>> pid_ = std::make_shared<std::atomic<int>>(0);
  EventLimiter drops_told_;
  // Changed under change_mu_ only.
  IdlePause pause_;
  // When the shim was last asked for, steady clock's nanoseconds.
  std::atomic<int64_t> asked_at_{0};

  // One at a time of Freeze, Thaw, Close, pausing and resuming; taken before mu_.
  Mutex change_mu_;

  mutable Mutex mu_;
  CondVar changed_;
  SandboxState state_ ABSL_GUARDED_BY(mu_) = SandboxState::kRunning;
  std::string reason_ ABSL_GUARDED_BY(mu_);
  std::string frozen_by_ ABSL_GUARDED_BY(mu_);
  std::string freeze_warning_ ABSL_GUARDED_BY(mu_);
  StubPtr stub_ ABSL_GUARDED_BY(mu_);
  // Why there is no stub.
  std::string down_reason_ ABSL_GUARDED_BY(mu_) = "its shim has not called yet";
  std::string version_ ABSL_GUARDED_BY(mu_);
  // The shim is not to be begun with yet.
  bool ahead_ ABSL_GUARDED_BY(mu_);
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
  // The commands that ran before a restart are not known yet.
  bool adopt_ ABSL_GUARDED_BY(mu_);
  std::deque<DroppedPeer> dropped_ ABSL_GUARDED_BY(mu_);
  bool detached_ ABSL_GUARDED_BY(mu_) = false;
  bool finding_ ABSL_GUARDED_BY(mu_) = false;
  std::thread finder_ ABSL_GUARDED_BY(mu_);
  // Asked for processes; Detach waits for the answer.
  int asking_ ABSL_GUARDED_BY(mu_) = 0;
  // Ends the watch when it goes; not under change_mu_, which the watch may wait for.
  std::shared_ptr<void> watch_ ABSL_GUARDED_BY(mu_);

  std::unique_ptr<ShimLink> link_;
  std::shared_ptr<void> egress_;
};

}  // namespace creel
