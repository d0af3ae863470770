#pragma once

#include <string>

#include "creel/gateway/v1/gateway.grpc.pb.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/session/call_gate.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// creel.gateway.v1.Gateway: translates each call, hands it to the gate and the shim, and translates
// back. Decides nothing. Thread-safe.
class GatewayService final : public gateway::v1::Gateway::CallbackService {
 public:
  // All must outlive the service. `workdir` is where workspaces lie in a sandbox. Without a desk
  // the calls that ask for decisions end with UNIMPLEMENTED.
  GatewayService(SessionManager& sessions, CallGate& gate, std::string workdir,
                 PolicyDesk* desk = nullptr);

  grpc::ServerUnaryReactor* OpenSession(grpc::CallbackServerContext* context,
                                        const gateway::v1::OpenSessionRequest* request,
                                        gateway::v1::OpenSessionResponse* response) override;
  grpc::ServerUnaryReactor* CloseSession(grpc::CallbackServerContext* context,
                                         const gateway::v1::CloseSessionRequest* request,
                                         gateway::v1::CloseSessionResponse* response) override;
  grpc::ServerUnaryReactor* GetSession(grpc::CallbackServerContext* context,
                                       const gateway::v1::GetSessionRequest* request,
                                       gateway::v1::GetSessionResponse* response) override;
  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* context,
                                         const gateway::v1::ListSessionsRequest* request,
                                         gateway::v1::ListSessionsResponse* response) override;

  grpc::ServerBidiReactor<gateway::v1::ExecRequest, gateway::v1::ExecResponse>* Exec(
      grpc::CallbackServerContext* context) override;
  grpc::ServerBidiReactor<gateway::v1::AttachProcessRequest, gateway::v1::AttachProcessResponse>*
  AttachProcess(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ListProcesses(grpc::CallbackServerContext* context,
                                          const gateway::v1::ListProcessesRequest* request,
                                          gateway::v1::ListProcessesResponse* response) override;
  grpc::ServerUnaryReactor* SendInput(grpc::CallbackServerContext* context,
                                      const gateway::v1::SendInputRequest* request,
                                      gateway::v1::SendInputResponse* response) override;

  grpc::ServerUnaryReactor* Stat(grpc::CallbackServerContext* context,
                                 const gateway::v1::StatRequest* request,
                                 gateway::v1::StatResponse* response) override;
  grpc::ServerWriteReactor<gateway::v1::ReadFileResponse>* ReadFile(
      grpc::CallbackServerContext* context, const gateway::v1::ReadFileRequest* request) override;
  grpc::ServerReadReactor<gateway::v1::WriteFileRequest>* WriteFile(
      grpc::CallbackServerContext* context, gateway::v1::WriteFileResponse* response) override;
  grpc::ServerUnaryReactor* EditFile(grpc::CallbackServerContext* context,
                                     const gateway::v1::EditFileRequest* request,
                                     gateway::v1::EditFileResponse* response) override;
  grpc::ServerWriteReactor<gateway::v1::ListDirectoryResponse>* ListDirectory(
      grpc::CallbackServerContext* context,
      const gateway::v1::ListDirectoryRequest* request) override;
  grpc::ServerUnaryReactor* MakeDirectory(grpc::CallbackServerContext* context,
                                          const gateway::v1::MakeDirectoryRequest* request,
                                          gateway::v1::MakeDirectoryResponse* response) override;
  grpc::ServerUnaryReactor* Move(grpc::CallbackServerContext* context,
                                 const gateway::v1::MoveRequest* request,
                                 gateway::v1::MoveResponse* response) override;
  grpc::ServerUnaryReactor* Copy(grpc::CallbackServerContext* context,
                                 const gateway::v1::CopyRequest* request,
                                 gateway::v1::CopyResponse* response) override;
  grpc::ServerUnaryReactor* Remove(grpc::CallbackServerContext* context,
                                   const gateway::v1::RemoveRequest* request,
                                   gateway::v1::RemoveResponse* response) override;
  grpc::ServerWriteReactor<gateway::v1::GlobResponse>* Glob(
      grpc::CallbackServerContext* context, const gateway::v1::GlobRequest* request) override;
  grpc::ServerWriteReactor<gateway::v1::GrepResponse>* Grep(
      grpc::CallbackServerContext* context, const gateway::v1::GrepRequest* request) override;
  grpc::ServerWriteReactor<gateway::v1::WatchResponse>* Watch(
      grpc::CallbackServerContext* context, const gateway::v1::WatchRequest* request) override;
  grpc::ServerWriteReactor<gateway::v1::TarOutResponse>* TarOut(
      grpc::CallbackServerContext* context, const gateway::v1::TarOutRequest* request) override;
  grpc::ServerReadReactor<gateway::v1::TarInRequest>* TarIn(
      grpc::CallbackServerContext* context, gateway::v1::TarInResponse* response) override;

  // gateway_policy.cc
  grpc::ServerUnaryReactor* GetInfo(grpc::CallbackServerContext* context,
                                    const gateway::v1::GetInfoRequest* request,
                                    gateway::v1::GetInfoResponse* response) override;
  grpc::ServerUnaryReactor* Admit(grpc::CallbackServerContext* context,
                                  const gateway::v1::AdmitRequest* request,
                                  gateway::v1::AdmitResponse* response) override;
  grpc::ServerUnaryReactor* Authorize(grpc::CallbackServerContext* context,
                                      const gateway::v1::AuthorizeRequest* request,
                                      gateway::v1::AuthorizeResponse* response) override;
  grpc::ServerUnaryReactor* CheckReply(grpc::CallbackServerContext* context,
                                       const gateway::v1::CheckReplyRequest* request,
                                       gateway::v1::CheckReplyResponse* response) override;
  grpc::ServerUnaryReactor* GetPrompt(grpc::CallbackServerContext* context,
                                      const gateway::v1::GetPromptRequest* request,
                                      gateway::v1::GetPromptResponse* response) override;
  grpc::ServerWriteReactor<gateway::v1::WatchStateResponse>* WatchState(
      grpc::CallbackServerContext* context, const gateway::v1::WatchStateRequest* request) override;

 private:
  SessionManager& sessions_;
  CallGate& gate_;
  const std::string workdir_;
  PolicyDesk* const desk_;
  // Openings and closings block. Their own threads, so that the operator's calls never wait here.
  WorkerPool workers_{8};
  // Decisions may write to the database, and must not wait behind openings.
  WorkerPool deciders_{4};
};

}  // namespace creel
