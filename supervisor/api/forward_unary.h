#pragma once

#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <memory>
#include <utility>

#include "supervisor/api/forwarded_call.h"

namespace creel {

// One request, one answer, carried on to the shim. `Translate` is called as
// `translate(shim_response, response)` and may take parts out of the former.
template <class Response, class ShimRequest, class ShimResponse, class Translate>
class UnaryCall final : public grpc::ServerUnaryReactor, public ForwardedCall {
 public:
  using Method = void (ForwardedCall::Async::*)(grpc::ClientContext*, const ShimRequest*,
                                                ShimResponse*, std::function<void(grpc::Status)>);

  UnaryCall(Method method, ShimRequest request, Response* response, Translate translate)
      : method_(method),
        request_(std::move(request)),
        response_(response),
        translate_(std::move(translate)) {}

  // Binds it to the caller's context and asks the gate.
  void Run(const grpc::CallbackServerContext& context, CallGate& gate, ToolCall call) {
    self_ = shared_from_this();
    BoundBy(context, std::chrono::seconds(60));
    Begin(gate, std::move(call));
  }

  void OnCancel() override { CallerLeft(); }
  void OnDone() override { self_.reset(); }

 protected:
  void StartUpstream(Async& async) override {
    (async.*method_)(
        &upstream(), &request_, &reply_,
        [this, self = shared_from_this()](grpc::Status status) { UpstreamEnded(status); });
  }

  // The reply is read only when the upstream call has succeeded, and so is over.
  void Conclude(const grpc::Status& status) override {
    if (status.ok()) {
      translate_(reply_, *response_);
    }
    Finish(status);
  }

 private:
  const Method method_;
  const ShimRequest request_;
  ShimResponse reply_;
  Response* const response_;  // gRPC's, until Finish
  const Translate translate_;
  std::shared_ptr<ForwardedCall> self_;
};

// Carries `request.args()` on to `method`.
template <class Request, class Response, class ShimRequest, class ShimResponse, class Translate>
grpc::ServerUnaryReactor* ForwardUnary(
    const grpc::CallbackServerContext& context, const Request& request, Response* response,
    CallGate& gate, ToolCall tool_call,
    void (ForwardedCall::Async::*method)(grpc::ClientContext*, const ShimRequest*, ShimResponse*,
                                         std::function<void(grpc::Status)>),
    Translate translate) {
  ShimRequest upstream;
  *upstream.mutable_args() = request.args();
  auto call = std::make_shared<UnaryCall<Response, ShimRequest, ShimResponse, Translate>>(
      method, std::move(upstream), response, std::move(translate));
  call->Run(context, gate, std::move(tool_call));
  return call.get();
}

}  // namespace creel
