#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "creel/operator/v1/operator.grpc.pb.h"
#include "supervisor/api/usage_watch.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/engine.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Looks at machine, engine and configuration, and puts right what can be if told to. May block.
using DiagnoseFunction = std::function<operator_::v1::DiagnoseResponse(bool fix)>;

// Looks at the text of a gateway's own configuration, which errors call `name`.
using DiagnoseGatewayFunction = std::function<absl::StatusOr<operator_::v1::DiagnoseResponse>(
    const std::string& text, const std::string& name)>;

// What reading the configuration again has brought.
struct ReloadReport {
  std::vector<std::string> changed;       // sections that count now
  std::vector<std::string> need_restart;  // sections that count after a restart
  std::vector<std::string>
      other_limits;  // sessions whose sandbox has other limits than it would get
};

// Reads the configuration again. On an error nothing has changed. May block.
using ReloadFunction = std::function<absl::StatusOr<ReloadReport>()>;

// Sections in which two configurations differ.
std::vector<std::string> ChangedSections(const Config& before, const Config& after);

// creel.operator.v1.Operator: what the operator may do besides the gateway. Thread-safe.
class OperatorService final : public operator_::v1::Operator::CallbackService {
 public:
  // All must outlive the service. Without a desk the calls about policy end with UNIMPLEMENTED.
  OperatorService(SessionManager& sessions, Engine& engine, const Config& config,
                  DiagnoseFunction diagnose, PolicyDesk* desk = nullptr, ReloadFunction reload = {},
                  DiagnoseGatewayFunction diagnose_gateway = {});

  grpc::ServerUnaryReactor* GetInfo(grpc::CallbackServerContext* context,
                                    const operator_::v1::GetInfoRequest* request,
                                    operator_::v1::GetInfoResponse* response) override;
  grpc::ServerUnaryReactor* OpenSession(grpc::CallbackServerContext* context,
                                        const operator_::v1::OpenSessionRequest* request,
                                        operator_::v1::OpenSessionResponse* response) override;
  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* context,
                                         const operator_::v1::ListSessionsRequest* request,
                                         operator_::v1::ListSessionsResponse* response) override;
  grpc::ServerUnaryReactor* InspectSession(
      grpc::CallbackServerContext* context, const operator_::v1::InspectSessionRequest* request,
      operator_::v1::InspectSessionResponse* response) override;
  grpc::ServerWriteReactor<operator_::v1::WatchUsageResponse>* WatchUsage(
      grpc::CallbackServerContext* context,
      const operator_::v1::WatchUsageRequest* request) override;
  grpc::ServerUnaryReactor* CloseSession(grpc::CallbackServerContext* context,
                                         const operator_::v1::CloseSessionRequest* request,
                                         operator_::v1::CloseSessionResponse* response) override;
  grpc::ServerUnaryReactor* FreezeSession(grpc::CallbackServerContext* context,
                                          const operator_::v1::FreezeSessionRequest* request,
                                          operator_::v1::FreezeSessionResponse* response) override;
  grpc::ServerUnaryReactor* ThawSession(grpc::CallbackServerContext* context,
                                        const operator_::v1::ThawSessionRequest* request,
                                        operator_::v1::ThawSessionResponse* response) override;
  grpc::ServerUnaryReactor* Diagnose(grpc::CallbackServerContext* context,
                                     const operator_::v1::DiagnoseRequest* request,
                                     operator_::v1::DiagnoseResponse* response) override;

  // operator_policy.cc
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const operator_::v1::ExplainRequest* request,
                                    operator_::v1::ExplainResponse* response) override;
  grpc::ServerUnaryReactor* ListPairings(grpc::CallbackServerContext* context,
                                         const operator_::v1::ListPairingsRequest* request,
                                         operator_::v1::ListPairingsResponse* response) override;
  grpc::ServerUnaryReactor* ApprovePairing(
      grpc::CallbackServerContext* context, const operator_::v1::ApprovePairingRequest* request,
      operator_::v1::ApprovePairingResponse* response) override;
  grpc::ServerUnaryReactor* DenyPairing(grpc::CallbackServerContext* context,
                                        const operator_::v1::DenyPairingRequest* request,
                                        operator_::v1::DenyPairingResponse* response) override;
  grpc::ServerUnaryReactor* ListApprovals(grpc::CallbackServerContext* context,
                                          const operator_::v1::ListApprovalsRequest* request,
                                          operator_::v1::ListApprovalsResponse* response) override;
  grpc::ServerUnaryReactor* AnswerApproval(
      grpc::CallbackServerContext* context, const operator_::v1::AnswerApprovalRequest* request,
      operator_::v1::AnswerApprovalResponse* response) override;
  grpc::ServerUnaryReactor* SetReadOnly(grpc::CallbackServerContext* context,
                                        const operator_::v1::SetReadOnlyRequest* request,
                                        operator_::v1::SetReadOnlyResponse* response) override;
  grpc::ServerUnaryReactor* GetReadOnly(grpc::CallbackServerContext* context,
                                        const operator_::v1::GetReadOnlyRequest* request,
                                        operator_::v1::GetReadOnlyResponse* response) override;
  grpc::ServerUnaryReactor* CheckPolicy(grpc::CallbackServerContext* context,
                                        const operator_::v1::CheckPolicyRequest* request,
                                        operator_::v1::CheckPolicyResponse* response) override;
  grpc::ServerUnaryReactor* ShowPolicy(grpc::CallbackServerContext* context,
                                       const operator_::v1::ShowPolicyRequest* request,
                                       operator_::v1::ShowPolicyResponse* response) override;
  grpc::ServerUnaryReactor* ReloadPolicy(grpc::CallbackServerContext* context,
                                         const operator_::v1::ReloadPolicyRequest* request,
                                         operator_::v1::ReloadPolicyResponse* response) override;
  grpc::ServerUnaryReactor* GetPrompt(grpc::CallbackServerContext* context,
                                      const operator_::v1::GetPromptRequest* request,
                                      operator_::v1::GetPromptResponse* response) override;
  grpc::ServerUnaryReactor* ResetTrust(grpc::CallbackServerContext* context,
                                       const operator_::v1::ResetTrustRequest* request,
                                       operator_::v1::ResetTrustResponse* response) override;

 private:
  absl::Status ExplainQuestion(const operator_::v1::ExplainRequest& request,
                               operator_::v1::ExplainResponse& response) const;
  void TellGateways();
  absl::Status Inspect(const std::string& session, Deadline deadline,
                       operator_::v1::InspectSessionResponse& response);

  SessionManager& sessions_;
  Engine& engine_;
  const Config& config_;
  const DiagnoseFunction diagnose_;
  PolicyDesk* const desk_;
  const ReloadFunction reload_;
  const DiagnoseGatewayFunction diagnose_gateway_;
  const std::chrono::system_clock::time_point started_at_ = std::chrono::system_clock::now();
  UsageMeter meter_;
  // A freeze must not wait behind openings or measurements, so that those have threads of their
  // own.
  WorkerPool freezers_{8};
  WorkerPool workers_{8};
  WorkerPool measurers_{4};
};

}  // namespace creel
