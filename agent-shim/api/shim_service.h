#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "agent-shim/api/file_handlers.h"
#include "agent-shim/egress/relay.h"
#include "agent-shim/exec/event_loop.h"
#include "agent-shim/exec/nursery.h"
#include "agent-shim/exec/process_table.h"
#include "agent-shim/link/identity.h"
#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/mutex.h"

namespace creel::shim {

// The shim's gRPC service. Refuses everything but Hello until that has succeeded on the connection;
// what a command or file call needs is made by the first Hello. Thread-safe.
class ShimService final : public v1::Shim::CallbackService {
 public:
  // All must outlive it. `is_init`: the process is PID 1 of its pid namespace. `egress_socket`: where
  // the tools' connections are carried to, if the setup asks for that.
  ShimService(EventLoop& loop, Nursery& nursery, Identity& identity, bool is_init,
              std::string egress_socket = "/run/creel/egress.sock");

  // The connection is gone: the next one has to prove itself anew.
  void ConnectionEnded();

  grpc::ServerUnaryReactor* Hello(grpc::CallbackServerContext* context,
                                  const v1::HelloRequest* request,
                                  v1::HelloResponse* response) override;
  grpc::ServerBidiReactor<v1::RunRequest, v1::RunResponse>* Run(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ListProcesses(grpc::CallbackServerContext* context,
                                          const v1::ListProcessesRequest* request,
                                          v1::ListProcessesResponse* response) override;
  grpc::ServerUnaryReactor* SendInput(grpc::CallbackServerContext* context,
                                      const v1::SendInputRequest* request,
                                      v1::SendInputResponse* response) override;
  grpc::ServerUnaryReactor* KillAll(grpc::CallbackServerContext* context,
                                    const v1::KillAllRequest* request,
                                    v1::KillAllResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;

  grpc::ServerUnaryReactor* Stat(grpc::CallbackServerContext* context,
                                 const v1::StatRequest* request,
                                 v1::StatResponse* response) override;
  grpc::ServerWriteReactor<v1::ReadFileResponse>* ReadFile(
      grpc::CallbackServerContext* context, const v1::ReadFileRequest* request) override;
  grpc::ServerReadReactor<v1::WriteFileRequest>* WriteFile(
      grpc::CallbackServerContext* context, v1::WriteFileResponse* response) override;
  grpc::ServerUnaryReactor* EditFile(grpc::CallbackServerContext* context,
                                     const v1::EditFileRequest* request,
                                     v1::EditFileResponse* response) override;
  grpc::ServerWriteReactor<v1::ListDirectoryResponse>* ListDirectory(
      grpc::CallbackServerContext* context, const v1::ListDirectoryRequest* request) override;
  grpc::ServerUnaryReactor* MakeDirectory(grpc::CallbackServerContext* context,
                                          const v1::MakeDirectoryRequest* request,
                                          v1::MakeDirectoryResponse* response) override;
  grpc::ServerUnaryReactor* Move(grpc::CallbackServerContext* context,
                                 const v1::MoveRequest* request,
                                 v1::MoveResponse* response) override;
  grpc::ServerUnaryReactor* Copy(grpc::CallbackServerContext* context,
                                 const v1::CopyRequest* request,
                                 v1::CopyResponse* response) override;
  grpc::ServerUnaryReactor* Remove(grpc::CallbackServerContext* context,
                                   const v1::RemoveRequest* request,
                                   v1::RemoveResponse* response) override;
  grpc::ServerWriteReactor<v1::GlobResponse>* Glob(grpc::CallbackServerContext* context,
                                                   const v1::GlobRequest* request) override;
  grpc::ServerWriteReactor<v1::GrepResponse>* Grep(grpc::CallbackServerContext* context,
                                                   const v1::GrepRequest* request) override;
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request) override;
  grpc::ServerWriteReactor<v1::TarOutResponse>* TarOut(grpc::CallbackServerContext* context,
                                                       const v1::TarOutRequest* request) override;
  grpc::ServerReadReactor<v1::TarInRequest>* TarIn(grpc::CallbackServerContext* context,
                                                   v1::TarInResponse* response) override;

 private:
  // What exists once the shim knows its sandbox; lives as long as the service.
  struct Tools {
    std::unique_ptr<ProcessTable> processes;
    std::unique_ptr<FileHandlers> files;
    std::unique_ptr<Relay> egress;  // null: there is no way out
  };

  absl::Status SayHello(const v1::HelloRequest& request, v1::HelloResponse* response,
                        const std::string& peer);
  absl::StatusOr<std::unique_ptr<Tools>> MakeTools(const v1::SandboxSetup& setup);
  // Null if this call's connection has not proved itself.
  Tools* Proved(const grpc::CallbackServerContext& context);

  EventLoop& loop_;
  Nursery& nursery_;
  Identity& identity_;
  const bool is_init_;
  const std::string egress_socket_;
  Mutex mu_;
  std::unique_ptr<Tools> tools_ ABSL_GUARDED_BY(mu_);  // once set it stays
  std::string proved_peer_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel::shim
