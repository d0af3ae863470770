#pragma once

#include <string>

#include "creel/operator/v1/egress.grpc.pb.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/egress/proxy.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// creel.operator.v1.Egress: what went out, what may, and why. Thread-safe.
class OperatorEgress final : public operator_::v1::Egress::CallbackService {
 public:
  // All must outlive the service. Without `desk` nothing is read-only.
  OperatorEgress(SessionManager& sessions, egress::Proxy& proxy, const PolicyDesk* desk)
      : sessions_(sessions), proxy_(proxy), desk_(desk) {}

  grpc::ServerUnaryReactor* ListEgress(grpc::CallbackServerContext* context,
                                       const operator_::v1::ListEgressRequest* request,
                                       operator_::v1::ListEgressResponse* response) override;
  grpc::ServerUnaryReactor* ExplainEgress(grpc::CallbackServerContext* context,
                                          const operator_::v1::ExplainEgressRequest* request,
                                          operator_::v1::ExplainEgressResponse* response) override;
  grpc::ServerUnaryReactor* TryEgress(grpc::CallbackServerContext* context,
                                      const operator_::v1::TryEgressRequest* request,
                                      operator_::v1::TryEgressResponse* response) override;
  grpc::ServerUnaryReactor* ListCredentials(
      grpc::CallbackServerContext* context, const operator_::v1::ListCredentialsRequest* request,
      operator_::v1::ListCredentialsResponse* response) override;
  grpc::ServerUnaryReactor* RevokeCredential(
      grpc::CallbackServerContext* context, const operator_::v1::RevokeCredentialRequest* request,
      operator_::v1::RevokeCredentialResponse* response) override;
  grpc::ServerUnaryReactor* RestoreCredential(
      grpc::CallbackServerContext* context, const operator_::v1::RestoreCredentialRequest* request,
      operator_::v1::RestoreCredentialResponse* response) override;

 private:
  absl::StatusOr<egress::Asker> AskerOf(const operator_::v1::ExplainEgressRequest& request) const;

  SessionManager& sessions_;
  egress::Proxy& proxy_;
  const PolicyDesk* const desk_;
  WorkerPool workers_{2};
};

}  // namespace creel
