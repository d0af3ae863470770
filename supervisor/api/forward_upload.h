#pragma once

#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "supervisor/api/forwarded_call.h"
#include "supervisor/api/status_map.h"

namespace creel {

// A stream of data with arguments in front, carried from the caller to the shim piece by piece; one
// answer. One piece is on its way to the shim while the next comes from the caller.
template <class Request, class Response, class ShimRequest, class ShimResponse, class Translate>
class UploadCall final : public grpc::ServerReadReactor<Request>, public ForwardedCall {
 public:
  using Method = void (ForwardedCall::Async::*)(grpc::ClientContext*, ShimResponse*,
                                                grpc::ClientWriteReactor<ShimRequest>*);
  // The tool call that the first message makes.
  using Describe = std::function<ToolCall(const Request&)>;

  UploadCall(Method method, CallGate& gate, Describe describe, Response* response,
             Translate translate)
      : method_(method),
        gate_(gate),
        describe_(std::move(describe)),
        response_(response),
        translate_(std::move(translate)),
        shim_(*this) {}

  void Run(const grpc::CallbackServerContext& context) {
    self_ = shared_from_this();
    BoundBy(context, std::chrono::milliseconds(0));
    this->StartRead(&in_);
  }

  void OnReadDone(bool ok) override {
    if (!started_) {
      Start(ok);
      return;
    }
    if (ok && (!in_.has_data() || in_.data().size() > kMaxPiece)) {
      End({grpc::StatusCode::INVALID_ARGUMENT,
           "every message but the first must hold `data` of at most 1 MiB"});
      return;
    }
    MutexLock lock(mu_);
    if (final_) {
      return;
    }
    if (!ok) {
      // Either the caller has sent all, or it is gone: gRPC tells both alike, and taking the second
      // for the first would leave half a file behind. Only a caller that is still there can be
      // sent something.
      this->StartSendInitialMetadata();
    } else if (writing_) {
      waiting_ = true;
    } else {
      PassOnLocked();
    }
  }

  void OnSendInitialMetadataDone(bool ok) override {
    MutexLock lock(mu_);
    if (!ok || final_) {
      return;
    }
    all_read_ = true;
    if (!writing_) {
      AllWrittenLocked();
    }
  }
  void OnCancel() override { CallerLeft(); }
  void OnDone() override { self_.reset(); }

 protected:
  void StartUpstream(Async& async) override {
    shim_.owner = shared_from_this();
    upstream().set_initial_metadata_corked(true);
    (async.*method_)(&upstream(), &reply_, &shim_);
    {
      MutexLock lock(mu_);
      writing_ = true;
      held_ = true;
      // Writes are started from the server's side too, which gRPC must know of.
      shim_.AddHold();
      shim_.StartWrite(&out_);
      if (!final_) {
        this->StartRead(&in_);
      }
    }
    shim_.StartCall();
  }

  void Conclude(const grpc::Status& status) override {
    MutexLock lock(mu_);
    final_ = true;
    LetGoLocked();
    if (status.ok()) {
      translate_(reply_, *response_);
    }
    this->Finish(status);
  }

 private:
  static constexpr size_t kMaxPiece = 1u << 20;

  // The side towards the shim.
  struct ShimSide final : public grpc::ClientWriteReactor<ShimRequest> {
    explicit ShimSide(UploadCall& to) : call(to) {}
    void OnWriteDone(bool ok) override { call.OnPieceWritten(ok); }
    void OnReadInitialMetadataDone(bool /*ok*/) override { call.OnAnswer(); }
    void OnDone(const grpc::Status& status) override {
      const std::shared_ptr<ForwardedCall> keep = std::move(owner);
      call.UpstreamEnded(status);
    }
    UploadCall& call;
    std::shared_ptr<ForwardedCall> owner;  // until gRPC is done with this side
  };

  void Start(bool ok) {
    if (!ok || !in_.has_start()) {
      End({grpc::StatusCode::INVALID_ARGUMENT, "the first message must hold `start`"});
      return;
    }
    started_ = true;
    *out_.mutable_args() = std::move(*in_.mutable_start()->mutable_args());
    Begin(gate_, describe_(in_));
  }

  void OnPieceWritten(bool ok) {
    MutexLock lock(mu_);
    writing_ = false;
    if (!ok || final_ || refused_) {
      // The shim has ended the call, perhaps while this was being written; OnDone will say how.
      refused_ = true;
      LetGoLocked();
    } else if (waiting_) {
      waiting_ = false;
      PassOnLocked();
    } else if (all_read_) {
      AllWrittenLocked();
    }
  }

  // The shim answers when it has all data, or wants no more; OnDone will say which. With the hold
  // kept, gRPC would not call it before the next write fails, and there may be none.
  void OnAnswer() {
    MutexLock lock(mu_);
    refused_ = true;
    LetGoLocked();
  }

  // Sends what was read to the shim, and reads on.
  void PassOnLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (refused_) {
      return;
    }
    out_.set_data(std::move(*in_.mutable_data()));
    writing_ = true;
    shim_.StartWrite(&out_);
    this->StartRead(&in_);
  }

  void AllWrittenLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!refused_) {
      refused_ = true;
      shim_.StartWritesDone();
    }
    LetGoLocked();
  }

  // No further write will be started.
  void LetGoLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (held_ && !writing_) {
      held_ = false;
      refused_ = true;
      shim_.RemoveHold();
    }
  }

  const Method method_;
  CallGate& gate_;
  const Describe describe_;
  Response* const response_;  // gRPC's, until Finish
  const Translate translate_;
  ShimSide shim_;
  Request in_;
  ShimRequest out_;
  ShimResponse reply_;
  bool started_ = false;  // in reactions only
  Mutex mu_;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;   // to the shim
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;   // in_ holds a piece that is yet to be sent
  bool all_read_ ABSL_GUARDED_BY(mu_) = false;  // the caller has sent all
  bool refused_ ABSL_GUARDED_BY(mu_) = false;   // nothing more may be written to the shim
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  bool final_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<ForwardedCall> self_;
};

template <class Request, class Response, class ShimRequest, class ShimResponse, class Translate>
grpc::ServerReadReactor<Request>* ForwardUpload(
    const grpc::CallbackServerContext& context, Response* response, CallGate& gate,
    std::function<ToolCall(const Request&)> describe,
    void (ForwardedCall::Async::*method)(grpc::ClientContext*, ShimResponse*,
                                         grpc::ClientWriteReactor<ShimRequest>*),
    Translate translate) {
  auto call = std::make_shared<UploadCall<Request, Response, ShimRequest, ShimResponse, Translate>>(
      method, gate, std::move(describe), response, std::move(translate));
  call->Run(context);
  return call.get();
}

}  // namespace creel
