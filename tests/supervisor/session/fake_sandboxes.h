#pragma once

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/session/sandbox_factory.h"

namespace creel {

// A clock that stands still until it is moved. Thread-safe.
class FakeClock final : public Clock {
 public:
  [[nodiscard]] std::chrono::system_clock::time_point Now() const override {
    MutexLock hold(mu_);
    return std::chrono::system_clock::time_point(std::chrono::hours(24 * 365 * 50)) + passed_;
  }
  [[nodiscard]] std::chrono::steady_clock::time_point Steady() const override {
    MutexLock hold(mu_);
    return std::chrono::steady_clock::time_point(std::chrono::hours(1)) + passed_;
  }
  void Move(std::chrono::seconds by) {
    MutexLock hold(mu_);
    passed_ += by;
  }

 private:
  mutable Mutex mu_;
  std::chrono::seconds passed_ ABSL_GUARDED_BY(mu_){0};
};

// A sandbox without a container, with a link to a shim that never answers. Thread-safe.
class FakeSandbox final : public Sandbox {
 public:
  FakeSandbox(SandboxIdentity identity, SandboxState state)
      : identity_(std::move(identity)), state_(state), stub_(NewStub()), processes_({}) {}

  [[nodiscard]] const SandboxIdentity& identity() const override { return identity_; }
  [[nodiscard]] SandboxState state() const override {
    MutexLock hold(mu_);
    return state_;
  }
  [[nodiscard]] std::string reason() const override {
    MutexLock hold(mu_);
    return reason_;
  }
  absl::StatusOr<std::shared_ptr<shim::v1::Shim::StubInterface>> shim() override {
    MutexLock hold(mu_);
    if (stub_ == nullptr) {
      return absl::UnavailableError("the link to the shim is down");
    }
    return stub_;
  }
  ProcessTable& processes() override { return processes_; }
  absl::StatusOr<std::string> Freeze(const std::string& reason, Deadline) override {
    if (!freeze_result.ok()) {
      return freeze_result;
    }
    Become(SandboxState::kFrozen, reason);
    return std::string("engine");
  }
  absl::Status Thaw(Deadline) override {
    Become(SandboxState::kRunning, "");
    return absl::OkStatus();
  }
  absl::StatusOr<bool> PauseIdle(const std::function<bool()>& idle, bool, Deadline) override {
    RETURN_IF_ERROR(pause_result);
    paused_ = true;
    if (between) {
      between();
    }
    if (!idle()) {
      paused_ = false;
    }
    return paused_.load();
  }
  [[nodiscard]] bool paused() const override { return paused_; }
  absl::Status Resume(Deadline) override {
    RETURN_IF_ERROR(resume_result);
    paused_ = false;
    return absl::OkStatus();
  }
  absl::Status Close(Deadline) override {
    if (close_result.ok()) {
      Become(SandboxState::kClosed, "closed");
    }
    return close_result;
  }
  void ContainerGone(const std::string& why) override { Become(SandboxState::kLost, why); }
  std::shared_ptr<void> OnLost(LostCallback callback) override {
    MutexLock hold(mu_);
    lost_.push_back(std::move(callback));
    return nullptr;
  }
  [[nodiscard]] std::string shim_version() const override { return "0.1.0"; }
  [[nodiscard]] std::vector<DroppedPeer> dropped_peers() const override { return {}; }
  [[nodiscard]] uint64_t WorkspaceUsed() const override { return 0; }
  [[nodiscard]] std::vector<BindMount> mounts() const override { return {}; }

  void DropLink() {
    MutexLock hold(mu_);
    stub_ = nullptr;
  }

  // Set before the sandbox is in use.
  absl::Status freeze_result;
  absl::Status pause_result;
  absl::Status resume_result;
  // Runs once it says that it is paused, before it asks again whether it is idle.
  std::function<void()> between;
  absl::Status close_result;

 private:
  static std::shared_ptr<shim::v1::Shim::StubInterface> NewStub() {
    static const std::shared_ptr<grpc::Channel>& nowhere = *new std::shared_ptr<grpc::Channel>(
        grpc::CreateChannel("unix:/nowhere/shim.sock", grpc::InsecureChannelCredentials()));
    return shim::v1::Shim::NewStub(nowhere);
  }
  void Become(SandboxState state, const std::string& reason) {
    std::vector<LostCallback> told;
    {
      MutexLock hold(mu_);
      state_ = state;
      reason_ = reason;
      if (state != SandboxState::kRunning) {
        told.swap(lost_);
      }
    }
    for (const LostCallback& callback : told) {
      callback(absl::UnavailableError(reason));
    }
  }

  const SandboxIdentity identity_;
  std::atomic<bool> paused_{false};
  mutable Mutex mu_;
  SandboxState state_ ABSL_GUARDED_BY(mu_);
  std::string reason_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<shim::v1::Shim::StubInterface> stub_ ABSL_GUARDED_BY(mu_);
  std::vector<LostCallback> lost_ ABSL_GUARDED_BY(mu_);
  ProcessTable processes_;
};

// Waits for a session, and becomes a FakeSandbox.
class FakePooled final : public PooledSandbox {
 public:
  using OnClaim = std::function<absl::StatusOr<std::shared_ptr<Sandbox>>(const SandboxIdentity&)>;
  FakePooled(SandboxIdentity identity, std::string image_id, OnClaim claim)
      : identity_(std::move(identity)), image_id_(std::move(image_id)), claim_(std::move(claim)) {}

  [[nodiscard]] const SandboxIdentity& identity() const override { return identity_; }
  [[nodiscard]] bool ready() const override { return true; }
  [[nodiscard]] bool Serves(const SandboxIdentity& wanted) const override {
    return wanted.image == identity_.image && wanted.runtime == identity_.runtime &&
           wanted.limits == identity_.limits;
  }
  [[nodiscard]] const std::string& image_id() const override { return image_id_; }
  [[nodiscard]] uint64_t memory_bytes() const override { return 10u << 20; }
  absl::StatusOr<std::shared_ptr<Sandbox>> Claim(SandboxIdentity& identity, Deadline) override {
    return claim_(identity);
  }

 private:
  const SandboxIdentity identity_;
  const std::string image_id_;
  const OnClaim claim_;
};

// Makes FakeSandboxes, each with a container in the host's engine, and remembers what was asked of
// it. Thread-safe.
class FakeSandboxes final : public SandboxFactory {
 public:
  absl::StatusOr<std::shared_ptr<Sandbox>> Create(const Sandbox::Host& host,
                                                  SandboxIdentity& identity,
                                                  Deadline deadline) override {
    MutexLock hold(mu_);
    creating_.push_back(identity);
    changed_.SignalAll();
    while (held_) {
      changed_.Wait(mu_);
    }
    if (!create_result_.ok()) {
      return create_result_;
    }
    // The engine is to know of it, as it is asked for what lives.
    ContainerConfig config;
    config.name = "creel-" + identity.id;
    config.image = identity.image;
    config.labels = {{"creel.install", host.install_id}, {"creel.sandbox", identity.id}};
    ASSIGN_OR_RETURN(identity.container_id, host.engine.CreateContainer(config, deadline));
    RETURN_IF_ERROR(host.engine.StartContainer(identity.container_id, deadline));
    auto made = std::make_shared<FakeSandbox>(identity, SandboxState::kRunning);
    made->close_result = close_result_;
    made->freeze_result = freeze_result_;
    living_[identity.id] = made;
    return made;
  }
  absl::StatusOr<std::unique_ptr<PooledSandbox>> MakeAhead(const Sandbox::Host& host,
                                                           SandboxIdentity& identity,
                                                           Deadline deadline) override {
    {
      MutexLock hold(mu_);
      made_ahead_.push_back(identity);
      RETURN_IF_ERROR(ahead_result_);
    }
    ASSIGN_OR_RETURN(const ImageInfo image, host.engine.InspectImage(identity.image, deadline));
    ContainerConfig config;
    config.name = "creel-" + identity.id;
    config.image = identity.image;
    config.labels = {{"creel.install", host.install_id}, {"creel.sandbox", identity.id}};
    ASSIGN_OR_RETURN(identity.container_id, host.engine.CreateContainer(config, deadline));
    RETURN_IF_ERROR(host.engine.StartContainer(identity.container_id, deadline));
    return std::make_unique<FakePooled>(
        identity, image.id,
        [this](const SandboxIdentity& session) -> absl::StatusOr<std::shared_ptr<Sandbox>> {
          MutexLock hold(mu_);
          claimed_.push_back(session);
          RETURN_IF_ERROR(claim_result_);
          auto made = std::make_shared<FakeSandbox>(session, SandboxState::kRunning);
          living_[session.id] = made;
          return made;
        });
  }
  absl::StatusOr<std::shared_ptr<Sandbox>> Adopt(const Sandbox::Host&,
                                                 const SandboxIdentity& identity,
                                                 Deadline) override {
    MutexLock hold(mu_);
    adopted_.push_back(identity);
    const auto found = adoptable_.find(identity.id);
    if (found == adoptable_.end()) {
      return absl::NotFoundError("the container is gone");
    }
    auto made = std::make_shared<FakeSandbox>(identity, found->second);
    made->close_result = close_result_;
    living_[identity.id] = made;
    return made;
  }
  absl::Status Remove(const Sandbox::Host& host, const SandboxIdentity& identity,
                      Deadline deadline) override {
    MutexLock hold(mu_);
    removed_.push_back(identity.id);
    if (remove_result_.ok() && !identity.container_id.empty()) {
      // Most have none by now.
      static_cast<void>(host.engine.RemoveContainer(identity.container_id, deadline));
    }
    return remove_result_;
  }

  // Openings stand still until Release.
  void Hold() {
    MutexLock hold(mu_);
    held_ = true;
  }
  void Release() {
    MutexLock hold(mu_);
    held_ = false;
    changed_.SignalAll();
  }
  void AwaitCreating(size_t count) {
    MutexLock hold(mu_);
    while (creating_.size() < count) {
      changed_.Wait(mu_);
    }
  }
  void SetResults(absl::Status create, absl::Status close, absl::Status remove,
                  absl::Status freeze = absl::OkStatus()) {
    MutexLock hold(mu_);
    create_result_ = std::move(create);
    close_result_ = std::move(close);
    remove_result_ = std::move(remove);
    freeze_result_ = std::move(freeze);
  }
  void SetAdoptable(const std::string& id, SandboxState state) {
    MutexLock hold(mu_);
    adoptable_[id] = state;
  }
  std::vector<SandboxIdentity> created() {
    MutexLock hold(mu_);
    return creating_;
  }
  std::vector<SandboxIdentity> made_ahead() {
    MutexLock hold(mu_);
    return made_ahead_;
  }
  std::vector<SandboxIdentity> claimed() {
    MutexLock hold(mu_);
    return claimed_;
  }
  void SetPoolResults(absl::Status ahead, absl::Status claim) {
    MutexLock hold(mu_);
    ahead_result_ = std::move(ahead);
    claim_result_ = std::move(claim);
  }
  std::vector<std::string> removed() {
    MutexLock hold(mu_);
    return removed_;
  }
  std::shared_ptr<FakeSandbox> living(const std::string& id) {
    MutexLock hold(mu_);
    return living_[id];
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status create_result_ ABSL_GUARDED_BY(mu_);
  absl::Status close_result_ ABSL_GUARDED_BY(mu_);
  absl::Status remove_result_ ABSL_GUARDED_BY(mu_);
  absl::Status freeze_result_ ABSL_GUARDED_BY(mu_);
  std::vector<SandboxIdentity> creating_ ABSL_GUARDED_BY(mu_);
  absl::Status ahead_result_ ABSL_GUARDED_BY(mu_);
  absl::Status claim_result_ ABSL_GUARDED_BY(mu_);
  std::vector<SandboxIdentity> made_ahead_ ABSL_GUARDED_BY(mu_);
  std::vector<SandboxIdentity> claimed_ ABSL_GUARDED_BY(mu_);
  std::vector<SandboxIdentity> adopted_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> removed_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, SandboxState> adoptable_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::shared_ptr<FakeSandbox>> living_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
