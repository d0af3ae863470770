#pragma once

#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "supervisor/api/forwarded_call.h"
#include "supervisor/api/status_map.h"

namespace creel {

// One request, a stream of answers, carried from the shim to the caller piece by piece: one piece
// is on its way to the caller while the next comes from the shim, and no more is held, so that a
// slow caller holds up the shim and not our memory. `Pass` is called as `pass(from_shim,
// to_caller)`; it moves a piece over and returns an error if the shim sent more than was asked for.
template <class Response, class ShimRequest, class ShimResponse, class Pass>
class DownloadCall final : public grpc::ServerWriteReactor<Response>, public ForwardedCall {
 public:
  using Method = void (ForwardedCall::Async::*)(grpc::ClientContext*, const ShimRequest*,
                                                grpc::ClientReadReactor<ShimResponse>*);

  DownloadCall(Method method, ShimRequest request, Pass pass)
      : method_(method), request_(std::move(request)), pass_(std::move(pass)), shim_(*this) {}

  void Run(const grpc::CallbackServerContext& context, CallGate& gate, ToolCall call) {
    self_ = shared_from_this();
    BoundBy(context, std::chrono::milliseconds(0));
    Begin(gate, std::move(call));
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (final_.has_value()) {
        this->Finish(*final_);
        return;
      }
      if (ok && waiting_) {
        waiting_ = false;
        reading_ = true;
        PassOnLocked();
        if (!broken_) {
          return;
        }
      }
    }
    if (!ok) {
      CallerLeft();
    } else {
      EndIfBroken();
    }
  }
  void OnCancel() override { CallerLeft(); }
  void OnDone() override { self_.reset(); }

 protected:
  void StartUpstream(Async& async) override {
    shim_.owner = shared_from_this();
    (async.*method_)(&upstream(), &request_, &shim_);
    {
      MutexLock lock(mu_);
      reading_ = true;
      held_ = true;
    }
    // Reads are started from the server's side too, which gRPC must know of.
    shim_.AddHold();
    shim_.StartRead(&in_);
    shim_.StartCall();
  }

  void Conclude(const grpc::Status& status) override {
    MutexLock lock(mu_);
    final_ = status;
    waiting_ = false;
    LetGoLocked();
    if (!writing_) {
      this->Finish(status);
    }
  }

 private:
  // The side towards the shim.
  struct ShimSide final : public grpc::ClientReadReactor<ShimResponse> {
    explicit ShimSide(DownloadCall& to) : call(to) {}
    void OnReadDone(bool ok) override { call.OnPiece(ok); }
    void OnDone(const grpc::Status& status) override {
      const std::shared_ptr<ForwardedCall> keep = std::move(owner);
      call.UpstreamEnded(status);
    }
    DownloadCall& call;
    std::shared_ptr<ForwardedCall> owner;  // until gRPC is done with this side
  };

  void OnPiece(bool ok) {
    {
      MutexLock lock(mu_);
      if (!ok || final_.has_value()) {
        reading_ = false;
        LetGoLocked();
        return;
      }
      if (writing_) {
        reading_ = false;
        waiting_ = true;
        return;
      }
      PassOnLocked();
    }
    EndIfBroken();
  }

  // Sends what was read to the caller, and reads on.
  void PassOnLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    out_.Clear();
    if (const absl::Status status = pass_(in_, out_); !status.ok()) {
      broken_ = status;
      reading_ = false;
      return;
    }
    writing_ = true;
    this->StartWrite(&out_);
    shim_.StartRead(&in_);
  }

  void EndIfBroken() {
    std::optional<absl::Status> broken;
    {
      MutexLock lock(mu_);
      broken = broken_;
    }
    if (broken.has_value()) {
      End(ToGrpc(*broken));
    }
  }

  // No further read will be started once the last one is over.
  void LetGoLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (held_ && !reading_) {
      held_ = false;
      shim_.RemoveHold();
    }
  }

  const Method method_;
  const ShimRequest request_;
  Mutex mu_;
  Pass pass_ ABSL_GUARDED_BY(mu_);
  ShimSide shim_;
  ShimResponse in_;
  Response out_;
  bool reading_ ABSL_GUARDED_BY(mu_) = false;  // from the shim
  bool writing_ ABSL_GUARDED_BY(mu_) = false;  // to the caller
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;  // in_ holds a piece that is yet to be sent
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> broken_ ABSL_GUARDED_BY(mu_);
  // What the call ends with, once nothing is being written.
  std::optional<grpc::Status> final_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<ForwardedCall> self_;
};

// Carries `request.args()` on to `method`.
template <class Response, class Request, class ShimRequest, class ShimResponse, class Pass>
grpc::ServerWriteReactor<Response>* ForwardDownload(
    const grpc::CallbackServerContext& context, const Request& request, CallGate& gate,
    ToolCall tool_call,
    void (ForwardedCall::Async::*method)(grpc::ClientContext*, const ShimRequest*,
                                         grpc::ClientReadReactor<ShimResponse>*),
    Pass pass) {
  ShimRequest upstream;
  *upstream.mutable_args() = request.args();
  auto call = std::make_shared<DownloadCall<Response, ShimRequest, ShimResponse, Pass>>(
      method, std::move(upstream), std::move(pass));
  call->Run(context, gate, std::move(tool_call));
  return call.get();
}

}  // namespace creel
