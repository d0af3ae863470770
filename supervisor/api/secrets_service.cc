#include "supervisor/api/secrets_service.h"

#include <chrono>
#include <utility>

#include "supervisor/api/on_worker.h"

namespace creel {
namespace {

constexpr std::chrono::minutes kReadWithin{5};
constexpr std::chrono::seconds kChangeWithin{30};

}  // namespace

grpc::ServerUnaryReactor* SecretsService::ListSecrets(
    grpc::CallbackServerContext* context, const operator_::v1::ListSecretsRequest* /*request*/,
    operator_::v1::ListSecretsResponse* response) {
  return OnWorker(*context, readers_, kReadWithin,
                  [this, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(std::vector<SecretView> all, desk_.List());
                    for (SecretView& view : all) {
                      operator_::v1::Secret& secret = *response->add_secrets();
                      secret.set_name(std::move(view.name));
                      secret.set_kind(std::move(view.kind));
                      secret.set_source(std::move(view.source));
                      secret.set_revoked(view.revoked);
                      secret.set_last_session(std::move(view.last_session));
                      secret.set_last_sandbox(std::move(view.last_sandbox));
                      secret.set_last_used_at(std::move(view.last_used_at));
                      secret.set_uses(view.uses);
                    }
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* SecretsService::RevokeSecret(
    grpc::CallbackServerContext* context, const operator_::v1::RevokeSecretRequest* request,
    operator_::v1::RevokeSecretResponse* /*response*/) {
  return OnWorker(*context, revokers_, kChangeWithin,
                  [this, request](Deadline /*deadline*/) { return desk_.Revoke(request->name()); });
}

grpc::ServerUnaryReactor* SecretsService::RestoreSecret(
    grpc::CallbackServerContext* context, const operator_::v1::RestoreSecretRequest* request,
    operator_::v1::RestoreSecretResponse* /*response*/) {
  return OnWorker(*context, revokers_, kChangeWithin, [this, request](Deadline /*deadline*/) {
    return desk_.Restore(request->name());
  });
}

}  // namespace creel
