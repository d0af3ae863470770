#include "agent-shim/api/shim_service.h"

#include <utility>
#include <vector>

#include "agent-shim/api/run_call.h"
#include "agent-shim/api/self_status.h"

namespace creel::shim {
namespace {

const char* const kNoHello = "Hello has not been called on this connection";

grpc::Status Unauthenticated() { return {grpc::StatusCode::UNAUTHENTICATED, kNoHello}; }

// A streaming call that ends at once.
template <typename Base>
class Refusal final : public Base {
 public:
  Refusal() { this->Finish(Unauthenticated()); }
  void OnDone() override { delete this; }
};
template <typename Response>
using RefusedWrite = Refusal<grpc::ServerWriteReactor<Response>>;
template <typename Request>
using RefusedRead = Refusal<grpc::ServerReadReactor<Request>>;

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace

ShimService::ShimService(EventLoop& loop, Nursery& nursery, Identity& identity, bool is_init,
                         std::string egress_socket)
    : loop_(loop),
      nursery_(nursery),
      identity_(identity),
      is_init_(is_init),
      egress_socket_(std::move(egress_socket)) {}

void ShimService::ConnectionEnded() {
  MutexLock lock(mu_);
  proved_peer_.clear();
}

ShimService::Tools* ShimService::Proved(const grpc::CallbackServerContext& context) {
  const std::string peer = context.peer();
  MutexLock lock(mu_);
  return tools_ != nullptr && !peer.empty() && peer == proved_peer_ ? tools_.get() : nullptr;
}

absl::StatusOr<std::unique_ptr<ShimService::Tools>> ShimService::MakeTools(
    const v1::SandboxSetup& setup) {
  auto tools = std::make_unique<Tools>();
  const std::vector<std::string> extra(setup.extra_roots().begin(), setup.extra_roots().end());
  ASSIGN_OR_RETURN(FileRoots roots, FileRoots::Open(setup.workspace(), extra));
  tools->files = std::make_unique<FileHandlers>(
      std::move(roots), ToolIdentity{.uid = setup.tool_uid(), .gid = setup.tool_gid()});
  ProcessTable::Options options;
  options.is_init = is_init_;
  options.defaults.user = {.uid = setup.tool_uid(), .gid = setup.tool_gid()};
  options.defaults.workspace = setup.workspace();
  options.defaults.env = {setup.env().begin(), setup.env().end()};
  const v1::ToolLimits& limits = setup.limits();
  if (limits.open_files() != 0) {
    options.defaults.open_files = limits.open_files();
  }
  if (limits.has_nice()) {
    options.defaults.nice = limits.nice();
  }
  if (limits.has_oom_score_adj()) {
    options.defaults.oom_score_adj = limits.oom_score_adj();
  }
  if (limits.ring_bytes() != 0) {
    options.ring_bytes = limits.ring_bytes();
  }
  if (setup.has_egress()) {
    // Before any tool runs, so that none can have taken the ports.
    Relay::Options egress{.socket = egress_socket_};
    for (const uint32_t port : setup.egress().ports()) {
      if (port == 0 || port > UINT16_MAX) {
        return absl::InvalidArgumentError("an egress port is not from 1 to 65535");
      }
      egress.ports.push_back(static_cast<uint16_t>(port));
    }
    if (setup.egress().max_connections() != 0) {
      egress.max_connections = setup.egress().max_connections();
    }
    ASSIGN_OR_RETURN(tools->egress, Relay::Start(std::move(egress)));
  }
  ASSIGN_OR_RETURN(tools->processes, ProcessTable::Start(loop_, nursery_, std::move(options)));
  return tools;
}

absl::Status ShimService::SayHello(const v1::HelloRequest& request, v1::HelloResponse* response,
                                   const std::string& peer) {
  MutexLock lock(mu_);
  std::unique_ptr<Tools> tools;
  if (tools_ == nullptr && request.has_setup()) {
    // Before the key is taken: a setup that does not work must not be the shim's for good.
    ASSIGN_OR_RETURN(tools, MakeTools(request.setup()));
  }
  ASSIGN_OR_RETURN(*response, identity_.Hello(request));
  if (tools_ == nullptr) {
    tools_ = std::move(tools);
  }
  proved_peer_ = peer;
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* ShimService::Hello(grpc::CallbackServerContext* context,
                                             const v1::HelloRequest* request,
                                             v1::HelloResponse* response) {
  return Answer(context, ToGrpc(SayHello(*request, response, context->peer())));
}

grpc::ServerBidiReactor<v1::RunRequest, v1::RunResponse>* ShimService::Run(
    grpc::CallbackServerContext* context) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new Refusal<grpc::ServerBidiReactor<v1::RunRequest, v1::RunResponse>>();
  }
  return RunCall::Begin(*tools->processes);
}

grpc::ServerUnaryReactor* ShimService::ListProcesses(grpc::CallbackServerContext* context,
                                                     const v1::ListProcessesRequest* /*request*/,
                                                     v1::ListProcessesResponse* response) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return Answer(context, Unauthenticated());
  }
  for (v1::ProcessInfo& info : tools->processes->List()) {
    *response->add_processes() = std::move(info);
  }
  return Answer(context, grpc::Status::OK);
}

grpc::ServerUnaryReactor* ShimService::SendInput(grpc::CallbackServerContext* context,
                                                 const v1::SendInputRequest* request,
                                                 v1::SendInputResponse* /*response*/) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return Answer(context, Unauthenticated());
  }
  const std::shared_ptr<Process> process = tools->processes->Find(request->process_id());
  if (process == nullptr) {
    return Answer(context, {grpc::StatusCode::NOT_FOUND, "no process of that id is remembered"});
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  process->Send(request->input(), /*bounded=*/true,
                [reactor](const absl::Status& status) { reactor->Finish(ToGrpc(status)); });
  return reactor;
}

grpc::ServerUnaryReactor* ShimService::KillAll(grpc::CallbackServerContext* context,
                                               const v1::KillAllRequest* /*request*/,
                                               v1::KillAllResponse* /*response*/) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return Answer(context, Unauthenticated());
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  tools->processes->KillAll([reactor] { reactor->Finish(grpc::Status::OK); });
  return reactor;
}

grpc::ServerUnaryReactor* ShimService::GetStatus(grpc::CallbackServerContext* context,
                                                 const v1::GetStatusRequest* /*request*/,
                                                 v1::GetStatusResponse* response) {
  if (Proved(*context) == nullptr) {
    return Answer(context, Unauthenticated());
  }
  *response = SelfStatus();
  return Answer(context, grpc::Status::OK);
}

// The file calls: FileHandlers does the work.

grpc::ServerUnaryReactor* ShimService::Stat(grpc::CallbackServerContext* context,
                                            const v1::StatRequest* request,
                                            v1::StatResponse* response) {
  Tools* tools = Proved(*context);
  return tools == nullptr ? Answer(context, Unauthenticated())
                          : tools->files->Stat(context, request, response);
}

grpc::ServerWriteReactor<v1::ReadFileResponse>* ShimService::ReadFile(
    grpc::CallbackServerContext* context, const v1::ReadFileRequest* request) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new RefusedWrite<v1::ReadFileResponse>();
  }
  return tools->files->ReadFile(context, request);
}

grpc::ServerReadReactor<v1::WriteFileRequest>* ShimService::WriteFile(
    grpc::CallbackServerContext* context, v1::WriteFileResponse* response) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new RefusedRead<v1::WriteFileRequest>();
  }
  return tools->files->WriteFile(context, response);
}

grpc::ServerUnaryReactor* ShimService::EditFile(grpc::CallbackServerContext* context,
                                                const v1::EditFileRequest* request,
                                                v1::EditFileResponse* response) {
  Tools* tools = Proved(*context);
  return tools == nullptr ? Answer(context, Unauthenticated())
                          : tools->files->EditFile(context, request, response);
}

grpc::ServerWriteReactor<v1::ListDirectoryResponse>* ShimService::ListDirectory(
    grpc::CallbackServerContext* context, const v1::ListDirectoryRequest* request) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new RefusedWrite<v1::ListDirectoryResponse>();
  }
  return tools->files->ListDirectory(context, request);
}

grpc::ServerUnaryReactor* ShimService::MakeDirectory(grpc::CallbackServerContext* context,
                                                     const v1::MakeDirectoryRequest* request,
                                                     v1::MakeDirectoryResponse* response) {
  Tools* tools = Proved(*context);
  return tools == nullptr ? Answer(context, Unauthenticated())
                          : tools->files->MakeDirectory(context, request, response);
}

grpc::ServerUnaryReactor* ShimService::Move(grpc::CallbackServerContext* context,
                                            const v1::MoveRequest* request,
                                            v1::MoveResponse* response) {
  Tools* tools = Proved(*context);
  return tools == nullptr ? Answer(context, Unauthenticated())
                          : tools->files->Move(context, request, response);
}

grpc::ServerUnaryReactor* ShimService::Copy(grpc::CallbackServerContext* context,
                                            const v1::CopyRequest* request,
                                            v1::CopyResponse* response) {
  Tools* tools = Proved(*context);
  return tools == nullptr ? Answer(context, Unauthenticated())
                          : tools->files->Copy(context, request, response);
}

grpc::ServerUnaryReactor* ShimService::Remove(grpc::CallbackServerContext* context,
                                              const v1::RemoveRequest* request,
                                              v1::RemoveResponse* response) {
  Tools* tools = Proved(*context);
  return tools == nullptr ? Answer(context, Unauthenticated())
                          : tools->files->Remove(context, request, response);
}

grpc::ServerWriteReactor<v1::GlobResponse>* ShimService::Glob(
    grpc::CallbackServerContext* context, const v1::GlobRequest* request) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new RefusedWrite<v1::GlobResponse>();
  }
  return tools->files->Glob(context, request);
}

grpc::ServerWriteReactor<v1::GrepResponse>* ShimService::Grep(
    grpc::CallbackServerContext* context, const v1::GrepRequest* request) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new RefusedWrite<v1::GrepResponse>();
  }
  return tools->files->Grep(context, request);
}

grpc::ServerWriteReactor<v1::WatchResponse>* ShimService::Watch(
    grpc::CallbackServerContext* context, const v1::WatchRequest* request) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new RefusedWrite<v1::WatchResponse>();
  }
  return tools->files->Watch(context, request);
}

grpc::ServerWriteReactor<v1::TarOutResponse>* ShimService::TarOut(
    grpc::CallbackServerContext* context, const v1::TarOutRequest* request) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new RefusedWrite<v1::TarOutResponse>();
  }
  return tools->files->TarOut(context, request);
}

grpc::ServerReadReactor<v1::TarInRequest>* ShimService::TarIn(
    grpc::CallbackServerContext* context, v1::TarInResponse* response) {
  Tools* tools = Proved(*context);
  if (tools == nullptr) {
    return new RefusedRead<v1::TarInRequest>();
  }
  return tools->files->TarIn(context, response);
}

}  // namespace creel::shim
