#include "supervisor/api/operator_egress.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "supervisor/api/convert.h"
#include "supervisor/api/on_worker.h"
#include "supervisor/api/status_map.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kTryWithin{30};
constexpr std::chrono::seconds kAskWithin{10};
constexpr uint32_t kDefaultLines = 100;
constexpr uint32_t kMostLines = 2000;

void ToMessage(const egress::Record& record, operator_::v1::EgressRecord& line) {
  line.set_number(record.number);
  *line.mutable_at() = ToTimestamp(record.at);
  line.set_ended(record.phase == egress::Record::Phase::kEnded);
  line.set_sandbox_id(record.sandbox);
  line.set_session(record.session);
  line.set_level(record.level);
  line.set_allowed(record.allowed);
  line.set_rule(record.rule);
  line.set_reason(record.reason);
  line.set_kind(record.kind);
  line.set_method(record.method);
  line.set_target(record.target);
  line.set_path(record.path);
  line.set_status(record.status);
  line.set_bytes_up(record.bytes_up);
  line.set_bytes_down(record.bytes_down);
  line.mutable_took()->set_seconds(record.took.count() / 1'000'000);
  line.mutable_took()->set_nanos(static_cast<int32_t>(record.took.count() % 1'000'000 * 1000));
}

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

}  // namespace

absl::StatusOr<egress::Asker> OperatorEgress::AskerOf(
    const operator_::v1::ExplainEgressRequest& request) const {
  egress::Asker asker;
  asker.session = request.session();
  asker.level = request.level();
  absl::StatusOr<SessionView> view = sessions_.Get(request.session());
  if (view.ok()) {
    asker.sandbox = view->identity.id;
    asker.session = view->session;
    if (asker.level.empty()) {
      asker.level = sessions_.LevelOf(view->identity.id);
    }
  } else if (request.level().empty()) {
    return view.status();
  }
  asker.read_only = desk_ != nullptr && desk_->IsReadOnlyAt(asker.session, asker.level);
  return asker;
}

grpc::ServerUnaryReactor* OperatorEgress::ListEgress(
    grpc::CallbackServerContext* context, const operator_::v1::ListEgressRequest* request,
    operator_::v1::ListEgressResponse* response) {
  return OnWorker(*context, workers_, kAskWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    std::string sandbox;
                    if (!request->session().empty()) {
                      ASSIGN_OR_RETURN(const SessionView view, sessions_.Get(request->session()));
                      sandbox = view.identity.id;
                    }
                    const uint32_t lines = std::min(
                        request->limit() == 0 ? kDefaultLines : request->limit(), kMostLines);
                    for (const egress::Record& record : proxy_.Log(sandbox, lines)) {
                      ToMessage(record, *response->add_records());
                    }
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* OperatorEgress::ExplainEgress(
    grpc::CallbackServerContext* context, const operator_::v1::ExplainEgressRequest* request,
    operator_::v1::ExplainEgressResponse* response) {
  return OnWorker(*context, workers_, kAskWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(const egress::Asker asker, AskerOf(*request));
                    ASSIGN_OR_RETURN(const egress::Verdict verdict,
                                     proxy_.Explain(asker, request->method(), request->url()));
                    response->set_allowed(verdict.allowed);
                    response->set_rule(verdict.rule);
                    response->set_reason(verdict.reason);
                    response->set_add(verdict.add);
                    response->set_level(asker.level.empty() ? "stranger" : asker.level);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* OperatorEgress::TryEgress(grpc::CallbackServerContext* context,
                                                    const operator_::v1::TryEgressRequest* request,
                                                    operator_::v1::TryEgressResponse* response) {
  return OnWorker(
      *context, workers_, kTryWithin, [this, request, response](Deadline deadline) -> absl::Status {
        ASSIGN_OR_RETURN(const egress::Asker asker, AskerOf(request->request()));
        ASSIGN_OR_RETURN(std::string reply, proxy_.Try(asker, request->request().method(),
                                                       request->request().url(), deadline));
        response->set_reply(std::move(reply));
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OperatorEgress::ListCredentials(
    grpc::CallbackServerContext* context, const operator_::v1::ListCredentialsRequest* /*request*/,
    operator_::v1::ListCredentialsResponse* response) {
  for (const egress::CredentialInfo& info : proxy_.credentials().List()) {
    operator_::v1::Credential& line = *response->add_credentials();
    line.set_service(info.service);
    line.set_kind(info.kind);
    line.set_source(info.source);
    line.set_revoked(info.revoked);
  }
  return Answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* OperatorEgress::RevokeCredential(
    grpc::CallbackServerContext* context, const operator_::v1::RevokeCredentialRequest* request,
    operator_::v1::RevokeCredentialResponse* /*response*/) {
  const absl::Status revoked = proxy_.credentials().Revoke(request->service());
  proxy_.Recheck("");  // what goes on with it ends
  return Answer(context, revoked);
}

grpc::ServerUnaryReactor* OperatorEgress::RestoreCredential(
    grpc::CallbackServerContext* context, const operator_::v1::RestoreCredentialRequest* request,
    operator_::v1::RestoreCredentialResponse* /*response*/) {
  return Answer(context, proxy_.credentials().Restore(request->service()));
}

}  // namespace creel
