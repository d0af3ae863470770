// The calls of GatewayService that ask for decisions.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "supervisor/api/gateway_service.h"
#include "supervisor/api/on_worker.h"
#include "supervisor/api/policy_convert.h"
#include "supervisor/api/watch_state.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

namespace g = gateway::v1;

// Of this API. A gateway that knows a newer one finds the calls it misses unimplemented.
constexpr uint32_t kApiMinor = 2;
constexpr std::chrono::seconds kDecideWithin{10};

grpc::ServerUnaryReactor* Unserved(grpc::CallbackServerContext& context) {
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  reactor->Finish({grpc::StatusCode::UNIMPLEMENTED, "no policy is served here"});
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* GatewayService::GetInfo(grpc::CallbackServerContext* context,
                                                  const g::GetInfoRequest* request,
                                                  g::GetInfoResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  response->set_version(CREEL_VERSION);
  response->set_api_minor(kApiMinor);
  // All that there was is still there, so an older caller may go on, and one that does not say.
  response->set_compatible(request->api_minor() <= kApiMinor);
  if (!response->compatible()) {
    response->set_reason(
        fmt::format("the gateway's adapter wants version {} of the API, and creeld {} has {}; "
                    "upgrade creeld",
                    request->api_minor(), CREEL_VERSION, kApiMinor));
  }
  if (desk_ != nullptr) {
    *response->mutable_state() = StateMessage(*desk_, sessions_);
  }
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* GatewayService::Admit(grpc::CallbackServerContext* context,
                                                const g::AdmitRequest* request,
                                                g::AdmitResponse* response) {
  if (desk_ == nullptr) {
    return Unserved(*context);
  }
  return OnWorker(*context, deciders_, kDecideWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(const AdmitQuestion question, FromMessage(*request));
                    const absl::StatusOr<AdmitAnswer> answer = desk_->Admit(question);
                    if (!answer.ok()) {
                      return absl::UnavailableError(answer.status().message());
                    }
                    *response = ToMessage(*answer);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* GatewayService::Authorize(grpc::CallbackServerContext* context,
                                                    const g::AuthorizeRequest* request,
                                                    g::AuthorizeResponse* response) {
  if (desk_ == nullptr) {
    return Unserved(*context);
  }
  return OnWorker(*context, deciders_, kDecideWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(const CallQuestion question, FromMessage(*request));
                    const absl::StatusOr<AuthorizeAnswer> answer =
                        desk_->Authorize(question, request->parameters(), request->tool_call_id(),
                                         request->approval_id());
                    if (!answer.ok()) {
                      return absl::UnavailableError(answer.status().message());
                    }
                    *response = ToMessage(*answer);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* GatewayService::CheckReply(grpc::CallbackServerContext* context,
                                                     const g::CheckReplyRequest* request,
                                                     g::CheckReplyResponse* response) {
  if (desk_ == nullptr) {
    return Unserved(*context);
  }
  return OnWorker(*context, deciders_, kDecideWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(const ReplyQuestion question, FromMessage(*request));
                    *response = ToMessage(desk_->Judge(question));
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* GatewayService::GetPrompt(grpc::CallbackServerContext* context,
                                                    const g::GetPromptRequest* request,
                                                    g::GetPromptResponse* response) {
  if (desk_ == nullptr) {
    return Unserved(*context);
  }
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  response->set_policy_version(desk_->version());
  auto prompt = desk_->Prompt(request->level(), request->session());
  if (prompt.ok()) {
    response->set_text(std::move(prompt->first));
    response->set_level(std::move(prompt->second));
  }
  reactor->Finish(ToGrpc(prompt.status()));
  return reactor;
}

grpc::ServerWriteReactor<g::WatchStateResponse>* GatewayService::WatchState(
    grpc::CallbackServerContext* /*context*/, const g::WatchStateRequest* /*request*/) {
  return ServeWatchState(desk_, sessions_);
}

}  // namespace creel
