#pragma once

#include "creel/operator/v1/secrets.grpc.pb.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/incident/secret_desk.h"

namespace creel {

// creel.operator.v1.Secrets. Thread-safe.
class SecretsService final : public operator_::v1::Secrets::CallbackService {
 public:
  // `desk` must outlive the service.
  explicit SecretsService(SecretDesk& desk) : desk_(desk) {}

  grpc::ServerUnaryReactor* ListSecrets(grpc::CallbackServerContext* context,
                                        const operator_::v1::ListSecretsRequest* request,
                                        operator_::v1::ListSecretsResponse* response) override;
  grpc::ServerUnaryReactor* RevokeSecret(grpc::CallbackServerContext* context,
                                         const operator_::v1::RevokeSecretRequest* request,
                                         operator_::v1::RevokeSecretResponse* response) override;
  grpc::ServerUnaryReactor* RestoreSecret(grpc::CallbackServerContext* context,
                                          const operator_::v1::RestoreSecretRequest* request,
                                          operator_::v1::RestoreSecretResponse* response) override;

 private:
  SecretDesk& desk_;
  // Revoking waits for nothing else.
  WorkerPool revokers_{2};
  WorkerPool readers_{1};
};

}  // namespace creel
