#pragma once

#include <grpcpp/create_channel_posix.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/sandbox/grpc_threads.h"
#include "supervisor/session/call_gate.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// A client's channel to a server of the same process, over a socket as in life: gRPC's in-process
// transport lets a writer hang when the other side ends a call early.
inline std::shared_ptr<grpc::Channel> ConnectTo(grpc::Server& server) {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
    std::abort();
  }
  grpc::AddInsecureChannelFromFd(&server, ends[0]);
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(4 << 20);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return grpc::CreateCustomInsecureChannelFromFd("test", ends[1], args);
}

// A sandbox whose shim is whatever service the test gives.
class FakeSandbox final : public Sandbox {
 public:
  explicit FakeSandbox(grpc::Service& shim) {
    HoldGrpcThreads();
    grpc::ServerBuilder builder;
    builder.RegisterService(&shim);
    server_ = builder.BuildAndStart();
    stub_ = std::shared_ptr<shim::v1::Shim::StubInterface>(
        shim::v1::Shim::NewStub(ConnectTo(*server_)));
    identity_.id = "0123456789abcdef";
    identity_.container_id = "c0ffee";
    identity_.image = "creel-sandbox:latest";
    identity_.workspace_bound = "sized";
  }
  ~FakeSandbox() override {
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  }

  // Before it is used: the engine's container behind it.
  void SetContainer(const std::string& id) { identity_.container_id = id; }

  const SandboxIdentity& identity() const override { return identity_; }
  SandboxState state() const override { return SandboxState::kRunning; }
  std::string reason() const override { return ""; }
  absl::StatusOr<std::shared_ptr<shim::v1::Shim::StubInterface>> shim() override { return stub_; }
  ProcessTable& processes() override { return processes_; }
  absl::StatusOr<std::string> Freeze(const std::string&, Deadline) override { return "engine"; }
  absl::Status Thaw(Deadline) override { return absl::OkStatus(); }
  absl::Status Close(Deadline) override { return absl::OkStatus(); }
  void ContainerGone(const std::string& why) override { processes_.LoseAll(why); }
  std::shared_ptr<void> OnLost(LostCallback) override { return nullptr; }
  std::string shim_version() const override { return "0.1.0"; }
  std::vector<DroppedPeer> dropped_peers() const override {
    return {{std::chrono::system_clock::now(), "a frame of \x1b[31m2 GiB"}};
  }
  uint64_t WorkspaceUsed() const override { return 4096; }
  std::vector<BindMount> mounts() const override {
    return {{"/run/creel/sandboxes/0123456789abcdef", "/run/creel", true, false}};
  }

 private:
  SandboxIdentity identity_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<shim::v1::Shim::StubInterface> stub_;
  ProcessTable processes_{ProcessTable::Options{}};
};

// Lets every call through to one sandbox, or refuses it as the test says. Thread-safe.
class FakeGate final : public CallGate {
 public:
  explicit FakeGate(std::shared_ptr<FakeSandbox> sandbox) : sandbox_(std::move(sandbox)) {}

  void Begin(ToolCall call, OnBegin done) override {
    absl::Status refusal;
    std::shared_ptr<Ticket> ticket;
    {
      MutexLock lock(mu_);
      calls_.push_back(call);
      refusal = refusal_;
      if (refusal.ok()) {
        ticket = std::make_shared<Ticket>(*this, sandbox_);
        tickets_.push_back(ticket);
      }
    }
    if (refusal.ok()) {
      done(std::move(ticket));
    } else {
      done(refusal);
    }
  }

  absl::Status DecideOpening(const std::string& /*session*/,
                             const std::string& /*sender*/) override {
    MutexLock lock(mu_);
    return refusal_;
  }

  void Refuse(absl::Status refusal) {
    MutexLock lock(mu_);
    refusal_ = std::move(refusal);
  }
  // Tells every call under way that the sandbox is gone.
  void Lose(const absl::Status& why) {
    std::vector<std::weak_ptr<Ticket>> tickets;
    {
      MutexLock lock(mu_);
      tickets = tickets_;
    }
    for (const auto& weak : tickets) {
      if (const auto ticket = weak.lock()) {
        ticket->Lose(why);
      }
    }
  }
  std::vector<ToolCall> calls() {
    MutexLock lock(mu_);
    return calls_;
  }
  std::vector<std::string> outcomes() {
    MutexLock lock(mu_);
    return outcomes_;
  }
  // Tickets that are still held.
  size_t held() {
    MutexLock lock(mu_);
    size_t count = 0;
    for (const auto& weak : tickets_) {
      count += weak.expired() ? 0 : 1;
    }
    return count;
  }

 private:
  class Ticket final : public CallTicket {
   public:
    Ticket(FakeGate& gate, std::shared_ptr<FakeSandbox> sandbox)
        : gate_(gate), sandbox_(std::move(sandbox)) {}
    ~Ticket() override {
      if (!finished_) {
        Record("caller went away");
      }
    }
    Sandbox& sandbox() override { return *sandbox_; }
    shim::v1::Shim::StubInterface& shim() override { return *shared_shim(); }
    std::shared_ptr<shim::v1::Shim::StubInterface> shared_shim() override {
      return *sandbox_->shim();
    }
    void OnLost(std::function<void(const absl::Status&)> lost) override {
      MutexLock lock(mu_);
      lost_ = std::move(lost);
    }
    void Finish(const std::string& outcome) override {
      finished_ = true;
      Record(outcome);
    }
    void Lose(const absl::Status& why) {
      std::function<void(const absl::Status&)> lost;
      {
        MutexLock lock(mu_);
        lost = std::exchange(lost_, nullptr);
      }
      if (lost) {
        lost(why);
      }
    }

   private:
    void Record(const std::string& outcome) {
      MutexLock lock(gate_.mu_);
      gate_.outcomes_.push_back(outcome);
    }
    FakeGate& gate_;
    std::shared_ptr<FakeSandbox> sandbox_;
    std::atomic<bool> finished_ = false;
    Mutex mu_;
    std::function<void(const absl::Status&)> lost_ ABSL_GUARDED_BY(mu_);
  };

  std::shared_ptr<FakeSandbox> sandbox_;
  Mutex mu_;
  absl::Status refusal_ ABSL_GUARDED_BY(mu_);
  std::vector<ToolCall> calls_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> outcomes_ ABSL_GUARDED_BY(mu_);
  std::vector<std::weak_ptr<Ticket>> tickets_ ABSL_GUARDED_BY(mu_);
};

// Sessions that share one sandbox; a key that begins with "no" is not there. Thread-safe.
class FakeSessions final : public SessionManager {
 public:
  explicit FakeSessions(std::shared_ptr<FakeSandbox> sandbox) : sandbox_(std::move(sandbox)) {}

  absl::Status Recover(Deadline) override { return absl::OkStatus(); }
  void Acquire(const OpenOptions&, OnSandbox done) override { done(sandbox_); }
  absl::StatusOr<std::pair<SessionView, bool>> Open(const OpenOptions& options, Deadline) override {
    RETURN_IF_ERROR(Known(options.session));
    MutexLock lock(mu_);
    const bool made = sessions_.try_emplace(options.session, View(options)).second;
    return std::pair(sessions_[options.session], made);
  }
  absl::StatusOr<SessionView> Get(const std::string& session) const override {
    RETURN_IF_ERROR(Known(session));
    MutexLock lock(mu_);
    const auto found = sessions_.find(session);
    if (found == sessions_.end()) {
      return absl::NotFoundError("no session '" + session + "' is open");
    }
    return found->second;
  }
  absl::StatusOr<std::shared_ptr<Sandbox>> Find(const std::string& session) const override {
    RETURN_IF_ERROR(Get(session).status());
    return sandbox_;
  }
  std::vector<SessionView> List() const override {
    MutexLock lock(mu_);
    std::vector<SessionView> views;
    for (const auto& [key, view] : sessions_) {
      views.push_back(view);
    }
    return views;
  }
  absl::Status Close(const std::string& session, bool force, Deadline) override {
    ASSIGN_OR_RETURN(const SessionView view, Get(session));
    if (view.state == SessionState::kFrozen && !force) {
      return absl::FailedPreconditionError("the session is frozen; thaw it, or use force");
    }
    MutexLock lock(mu_);
    sessions_.erase(session);
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> Freeze(const std::string& session, const std::string& reason,
                                     Deadline) override {
    RETURN_IF_ERROR(Get(session).status());
    MutexLock lock(mu_);
    sessions_[session].state = SessionState::kFrozen;
    sessions_[session].reason = reason;
    return "engine";
  }
  absl::Status Thaw(const std::string& session, Deadline) override {
    ASSIGN_OR_RETURN(const SessionView view, Get(session));
    if (view.state != SessionState::kFrozen) {
      return absl::FailedPreconditionError("the session is not frozen");
    }
    MutexLock lock(mu_);
    sessions_[session].state = SessionState::kRunning;
    return absl::OkStatus();
  }
  void Stop() override {}

 private:
  static absl::Status Known(const std::string& session) {
    return session.starts_with("no") ? absl::NotFoundError("no session '" + session + "' is open")
                                     : absl::OkStatus();
  }
  SessionView View(const OpenOptions& options) const {
    SessionView view;
    view.session = options.session;
    view.sender = options.sender;
    view.state = SessionState::kRunning;
    view.opened_at = view.last_call_at =
        std::chrono::system_clock::now() - std::chrono::seconds(90);
    view.identity = sandbox_->identity();
    return view;
  }

  std::shared_ptr<FakeSandbox> sandbox_;
  mutable Mutex mu_;
  std::map<std::string, SessionView> sessions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
