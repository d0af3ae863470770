#pragma once

#include <chrono>
#include <functional>

#include "creel/operator/v1/operator.grpc.pb.h"
#include "supervisor/api/usage_watch.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/engine.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Looks at machine, engine and configuration. May block.
using DiagnoseFunction = std::function<operator_::v1::DiagnoseResponse()>;

// creel.operator.v1.Operator: what the operator may do besides the gateway. Thread-safe.
class OperatorService final : public operator_::v1::Operator::CallbackService {
 public:
  // All must outlive the service.
  OperatorService(SessionManager& sessions, Engine& engine, const Config& config,
                  DiagnoseFunction diagnose);

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

 private:
  absl::Status Inspect(const std::string& session, Deadline deadline,
                       operator_::v1::InspectSessionResponse& response);

  SessionManager& sessions_;
  Engine& engine_;
  const Config& config_;
  const DiagnoseFunction diagnose_;
  const std::chrono::system_clock::time_point started_at_ = std::chrono::system_clock::now();
  UsageMeter meter_;
  // A freeze must not wait behind openings or measurements, so that those have threads of their
  // own.
  WorkerPool freezers_{8};
  WorkerPool workers_{8};
  WorkerPool measurers_{4};
};

}  // namespace creel
