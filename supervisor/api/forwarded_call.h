#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <functional>
#include <memory>
#include <string>

#include "supervisor/base/mutex.h"
#include "supervisor/session/call_gate.h"

namespace creel {

// What every call that is carried on to a shim has in common, whichever way its messages flow: it
// passes the gate, gets one upstream call, and ends exactly once - with the shim's answer, or
// because the caller left, or at once when the sandbox is lost. Thread-safe.
class ForwardedCall : public std::enable_shared_from_this<ForwardedCall> {
 public:
  using Async = shim::v1::Shim::StubInterface::async_interface;

  virtual ~ForwardedCall() = default;
  ForwardedCall(const ForwardedCall&) = delete;
  ForwardedCall& operator=(const ForwardedCall&) = delete;

 protected:
  ForwardedCall() = default;

  // Starts the call towards the shim, with `upstream()` as its context. `async` lives as long as
  // this object.
  virtual void StartUpstream(Async& async) = 0;
  // Ends the server's side; called once, from any thread.
  virtual void Conclude(const grpc::Status& status) = 0;

  // Asks the gate, and starts the upstream call if it lets this one through.
  void Begin(CallGate& gate, ToolCall call);
  // The upstream call is over. An error that only says the connection broke is held back for a
  // moment, in which the sandbox finds out why and ends the call with that.
  void UpstreamEnded(const grpc::Status& status);
  // Ends the call with our own verdict; the first caller wins.
  void End(const grpc::Status& status);
  // For the reactor's OnCancel.
  void CallerLeft();

  // Keeps the caller's trace for Begin. The upstream call may last as long as the caller gave it;
  // if that is unlimited, then `otherwise` (zero: unlimited too).
  void BoundBy(const grpc::CallbackServerContext& caller, std::chrono::milliseconds otherwise);

  grpc::ClientContext& upstream() { return upstream_; }

 private:
  void Let(absl::StatusOr<std::shared_ptr<CallTicket>> ticket);

  grpc::ClientContext upstream_;
  std::string trace_;
  grpc::Alarm patience_;
  Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<CallTicket> ticket_ ABSL_GUARDED_BY(mu_);
  // Keeps the channel as long as the upstream call needs it.
  std::shared_ptr<shim::v1::Shim::StubInterface> stub_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
