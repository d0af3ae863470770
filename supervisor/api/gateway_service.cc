#include "supervisor/api/gateway_service.h"

#include <chrono>
#include <utility>

#include "supervisor/api/command_check.h"
#include "supervisor/api/convert.h"
#include "supervisor/api/on_worker.h"
#include "supervisor/api/process_call.h"
#include "supervisor/api/status_map.h"
#include "supervisor/api/tool_call.h"
#include "supervisor/api/trace.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

// An opening may have to wait for the engine to make room on a busy machine.
constexpr std::chrono::seconds kOpenWithin{60};
constexpr std::chrono::seconds kCloseWithin{30};
// What a list of processes may take of a message.
constexpr size_t kMaxListedBytes = 3u << 20;
constexpr size_t kMaxListedCommand = 4096;

// Commands in a list are for recognising them: large ones are cut, so that the list fits a message.
void Trim(shim::v1::CommandSpec& spec) {
  if (spec.ByteSizeLong() <= kMaxListedCommand) {
    return;
  }
  spec.clear_env();
  if (spec.shell().size() > kMaxListedCommand) {
    spec.set_shell(Printable(spec.shell(), kMaxListedCommand));
  }
  size_t kept = 0;
  int words = 0;
  while (words < spec.argv_size() && kept <= kMaxListedCommand) {
    std::string& word = *spec.mutable_argv(words++);
    if (word.size() > kMaxListedCommand) {
      word = Printable(word, kMaxListedCommand);
    }
    kept += word.size();
  }
  spec.mutable_argv()->DeleteSubrange(words, spec.argv_size() - words);
}

// A process of a session that the gate has let a call reach.
absl::StatusOr<std::shared_ptr<RemoteProcess>> FindProcess(CallTicket& ticket,
                                                           const std::string& process_id) {
  RETURN_IF_ERROR(CheckProcessId(process_id, false));
  std::shared_ptr<RemoteProcess> process = ticket.sandbox().processes().Find(process_id);
  if (process == nullptr) {
    return absl::NotFoundError("no process '" + process_id +
                               "' runs or is remembered; ListProcesses tells them");
  }
  return process;
}

}  // namespace

GatewayService::GatewayService(SessionManager& sessions, CallGate& gate, std::string workdir,
                               PolicyDesk* desk)
    : sessions_(sessions), gate_(gate), workdir_(std::move(workdir)), desk_(desk) {}

grpc::ServerUnaryReactor* GatewayService::OpenSession(
    grpc::CallbackServerContext* context, const gateway::v1::OpenSessionRequest* request,
    gateway::v1::OpenSessionResponse* response) {
  return OnWorker(*context, workers_, kOpenWithin,
                  [this, request, response](Deadline deadline) -> absl::Status {
                    ASSIGN_OR_RETURN(const OpenOptions options, FromMessage(*request));
                    RETURN_IF_ERROR(gate_.DecideOpening(options.session, options.sender));
                    ASSIGN_OR_RETURN(const auto opened, sessions_.Open(options, deadline));
                    *response->mutable_session() = ToMessage(opened.first, workdir_);
                    response->set_created(opened.second);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* GatewayService::CloseSession(
    grpc::CallbackServerContext* context, const gateway::v1::CloseSessionRequest* request,
    gateway::v1::CloseSessionResponse* /*response*/) {
  return OnWorker(*context, workers_, kCloseWithin, [this, request](Deadline deadline) {
    return sessions_.Close(request->context().session(), /*force=*/false, deadline);
  });
}

grpc::ServerUnaryReactor* GatewayService::GetSession(grpc::CallbackServerContext* context,
                                                     const gateway::v1::GetSessionRequest* request,
                                                     gateway::v1::GetSessionResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<SessionView> view = sessions_.Get(request->context().session());
  if (view.ok()) {
    *response->mutable_session() = ToMessage(*view, workdir_);
  }
  reactor->Finish(ToGrpc(view.status()));
  return reactor;
}

grpc::ServerUnaryReactor* GatewayService::ListSessions(
    grpc::CallbackServerContext* context, const gateway::v1::ListSessionsRequest* /*request*/,
    gateway::v1::ListSessionsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  for (const SessionView& view : sessions_.List()) {
    *response->add_sessions() = ToMessage(view, workdir_);
  }
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerBidiReactor<gateway::v1::ExecRequest, gateway::v1::ExecResponse>* GatewayService::Exec(
    grpc::CallbackServerContext* context) {
  return ServeExec(gate_, TraceparentOf(*context));
}

grpc::ServerBidiReactor<gateway::v1::AttachProcessRequest, gateway::v1::AttachProcessResponse>*
GatewayService::AttachProcess(grpc::CallbackServerContext* context) {
  return ServeAttach(gate_, TraceparentOf(*context));
}

grpc::ServerUnaryReactor* GatewayService::ListProcesses(
    grpc::CallbackServerContext* context, const gateway::v1::ListProcessesRequest* request,
    gateway::v1::ListProcessesResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  ToolCall call = MakeToolCall(request->context(), "processes", "");
  call.trace = TraceparentOf(*context);
  gate_.Begin(std::move(call),
              [reactor, response](absl::StatusOr<std::shared_ptr<CallTicket>> ticket) {
                if (!ticket.ok()) {
                  reactor->Finish(ToGrpc(ticket.status()));
                  return;
                }
                size_t bytes = 0;
                for (shim::v1::ProcessInfo& info : (*ticket)->sandbox().processes().List()) {
                  Trim(*info.mutable_spec());
                  bytes += info.ByteSizeLong();
                  if (bytes <= kMaxListedBytes) {
                    *response->add_processes() = std::move(info);
                  }
                }
                (*ticket)->Finish("ok");
                reactor->Finish(grpc::Status::OK);
              });
  return reactor;
}

grpc::ServerUnaryReactor* GatewayService::SendInput(grpc::CallbackServerContext* context,
                                                    const gateway::v1::SendInputRequest* request,
                                                    gateway::v1::SendInputResponse* /*response*/) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (const absl::Status status = CheckInput(request->input()); !status.ok()) {
    reactor->Finish(ToGrpc(status));
    return reactor;
  }
  ToolCall call = MakeToolCall(request->context(), "input", request->process_id());
  call.trace = TraceparentOf(*context);
  gate_.Begin(
      std::move(call), [reactor, request](absl::StatusOr<std::shared_ptr<CallTicket>> ticket) {
        if (!ticket.ok()) {
          reactor->Finish(ToGrpc(ticket.status()));
          return;
        }
        const auto process = FindProcess(**ticket, request->process_id());
        const auto finish = [reactor, ticket = *ticket](const absl::Status& status) {
          const grpc::Status told = ToGrpc(status);
          ticket->Finish(Outcome(told));
          reactor->Finish(told);
        };
        if (!process.ok()) {
          finish(process.status());
        } else if (request->input().has_stop() && !request->input().stop().has_grace()) {
          // Goes ahead of input that a command does not read.
          const bool ended = (*process)->Info().has_exit();
          (*process)->Stop();
          finish(ended ? absl::FailedPreconditionError("the command has ended") : absl::OkStatus());
        } else {
          (*process)->Send(request->input(), finish);
        }
      });
  return reactor;
}

}  // namespace creel
