#include "supervisor/api/operator_service.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "supervisor/api/convert.h"
#include "supervisor/api/on_worker.h"
#include "supervisor/base/escape.h"
#include "supervisor/config/web_keys.h"
#include "supervisor/policy/placement.h"
#include "supervisor/session/policy_desk.h"

namespace creel {
namespace {

using std::chrono::seconds;

constexpr seconds kAskWithin{10};
constexpr seconds kOpenWithin{60};
constexpr seconds kCloseWithin{30};
constexpr seconds kFreezeWithin{20};
// For the engine's own words in GetInfo, which is also a sign of life.
constexpr seconds kEngineWithin{2};
constexpr size_t kMaxReason = 1024;
// What of a freeze that came to pass did not work out, as text.
constexpr char kWarningKey[] = "creel-warning-bin";
constexpr size_t kMaxConfigName = 512;
// The engine's JSON has to fit a message, and a sandbox has no say in its length.
constexpr size_t kMaxEngineJson = 1u << 20;

}  // namespace

std::vector<std::string> ChangedSections(const Config& before, const Config& after) {
  std::vector<std::string> sections;
  const auto compare = [&](const char* name, bool same) {
    if (!same) {
      sections.emplace_back(name);
    }
  };
  const PolicyConfig& a = before.policy;
  const PolicyConfig& b = after.policy;
  compare("levels", a.levels == b.levels);
  compare("channels", a.channels == b.channels);
  compare("rules", a.rules == b.rules);
  compare("trust", a.blocked == b.blocked && a.unnamed == b.unnamed);
  compare("pairing",
          a.pairing_lifetime == b.pairing_lifetime && a.pairing_pending == b.pairing_pending);
  compare("approvals", a.approval_timeout == b.approval_timeout);
  compare("replies", a.on_secret == b.on_secret && a.secret_files == b.secret_files &&
                         a.host_paths == b.host_paths);
  compare("mention_patterns", a.mention_patterns == b.mention_patterns);
  compare("read_only", a.read_only == b.read_only);
  compare("egress", before.egress == after.egress);
  compare("sessions", before.sessions == after.sessions);
  compare("sandbox", before.sandbox == after.sandbox);
  compare("log", before.log == after.log);
  compare("engine", before.engine == after.engine);
  compare("paths", before.paths == after.paths);
  compare("gateway", before.gateway == after.gateway && before.gateway_uids == after.gateway_uids &&
                         before.gateway_import == after.gateway_import);
  compare("operator", before.operator_door == after.operator_door);
  compare("web", WebConfigOf(before) == WebConfigOf(after));
  compare("concessions", before.concessions == after.concessions);
  return sections;
}

OperatorService::OperatorService(SessionManager& sessions, Engine& engine, const Config& config,
                                 DiagnoseFunction diagnose, PolicyDesk* desk, ReloadFunction reload,
                                 DiagnoseGatewayFunction diagnose_gateway)
    : sessions_(sessions),
      engine_(engine),
      config_(config),
      diagnose_(std::move(diagnose)),
      desk_(desk),
      reload_(std::move(reload)),
      diagnose_gateway_(std::move(diagnose_gateway)),
      meter_(engine, sessions) {}

grpc::ServerUnaryReactor* OperatorService::GetInfo(grpc::CallbackServerContext* context,
                                                   const operator_::v1::GetInfoRequest* /*request*/,
                                                   operator_::v1::GetInfoResponse* response) {
  return OnWorker(*context, workers_, kEngineWithin, [this, response](Deadline deadline) {
    response->set_version(CREEL_VERSION);
    *response->mutable_started_at() = ToTimestamp(started_at_);
    response->set_pid(getpid());
    response->set_config_file(config_.file);
    // An engine that is away leaves its two fields empty: the supervisor is there all the same.
    if (const auto engine = engine_.Info(deadline); engine.ok()) {
      response->set_engine_version(Printable(engine->version, 128));
      response->set_engine_api_version(Printable(engine->api_version, 128));
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperatorService::OpenSession(
    grpc::CallbackServerContext* context, const operator_::v1::OpenSessionRequest* request,
    operator_::v1::OpenSessionResponse* response) {
  return OnWorker(*context, workers_, kOpenWithin,
                  [this, request, response](Deadline deadline) -> absl::Status {
                    ASSIGN_OR_RETURN(const OpenOptions options, FromMessage(request->open()));
                    if (desk_ != nullptr) {
                      // The operator may open it for anybody; who that is counts all the same.
                      RETURN_IF_ERROR(CheckSessionKey(options.session));
                      RETURN_IF_ERROR(desk_->Reached(options.session, ParseSender(options.sender)));
                    }
                    ASSIGN_OR_RETURN(const auto opened, sessions_.Open(options, deadline));
                    *response->mutable_session() = ToMessage(opened.first, config_.sandbox.workdir);
                    response->set_created(opened.second);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* OperatorService::ListSessions(
    grpc::CallbackServerContext* context, const operator_::v1::ListSessionsRequest* request,
    operator_::v1::ListSessionsResponse* response) {
  if (!request->with_usage()) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    for (const SessionView& view : sessions_.List()) {
      *response->add_sessions()->mutable_session() = ToMessage(view, config_.sandbox.workdir);
    }
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  return OnWorker(*context, measurers_, kAskWithin, [this, response](Deadline deadline) {
    for (const SessionView& view : sessions_.List()) {
      operator_::v1::SessionDetails& details = *response->add_sessions();
      *details.mutable_session() = ToMessage(view, config_.sandbox.workdir);
      // One that cannot be measured, as it just went away, is listed without.
      if (auto usage = meter_.Measure(view, deadline); usage.ok()) {
        *details.mutable_usage() = *std::move(usage);
      }
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperatorService::InspectSession(
    grpc::CallbackServerContext* context, const operator_::v1::InspectSessionRequest* request,
    operator_::v1::InspectSessionResponse* response) {
  return OnWorker(*context, measurers_, kAskWithin, [this, request, response](Deadline deadline) {
    return Inspect(request->session(), deadline, *response);
  });
}

absl::Status OperatorService::Inspect(const std::string& session, Deadline deadline,
                                      operator_::v1::InspectSessionResponse& response) {
  ASSIGN_OR_RETURN(const SessionView view, sessions_.Get(session));
  const SandboxIdentity& identity = view.identity;
  *response.mutable_details()->mutable_session() = ToMessage(view, config_.sandbox.workdir);
  response.set_tool_uid(identity.tool_uid);
  response.set_tool_gid(identity.tool_gid);
  response.set_spec_hash(identity.spec_hash);
  response.set_workspace_bound(identity.workspace_bound);
  *response.mutable_limits() = Limits(identity.limits);
  if (const auto sandbox = sessions_.Find(view.session); sandbox.ok()) {
    response.set_shim_version(Printable((*sandbox)->shim_version(), 128));
    for (const BindMount& mount : (*sandbox)->mounts()) {
      operator_::v1::Mount& line = *response.add_mounts();
      line.set_source(mount.source);
      line.set_target(mount.target);
      line.set_read_only(mount.read_only);
    }
    for (const DroppedPeer& peer : (*sandbox)->dropped_peers()) {
      operator_::v1::DroppedPeer& line = *response.add_dropped_peers();
      *line.mutable_at() = ToTimestamp(peer.at);
      line.set_reason(Printable(peer.reason, kMaxReason));
    }
  }
  // What the engine has to say is left out while it is away, or the container is gone: the rest is
  // wanted then all the more.
  if (identity.container_id.empty()) {
    return absl::OkStatus();
  }
  if (auto container = engine_.InspectContainer(identity.container_id, deadline); container.ok()) {
    if (container->json.size() <= kMaxEngineJson) {
      response.set_engine_json(std::move(container->json));
    }
  }
  if (auto usage = meter_.Measure(view, deadline); usage.ok()) {
    *response.mutable_details()->mutable_usage() = *std::move(usage);
  }
  return absl::OkStatus();
}

grpc::ServerWriteReactor<operator_::v1::WatchUsageResponse>* OperatorService::WatchUsage(
    grpc::CallbackServerContext* /*context*/, const operator_::v1::WatchUsageRequest* request) {
  return ServeWatchUsage(meter_, measurers_, request->session());
}

grpc::ServerUnaryReactor* OperatorService::CloseSession(
    grpc::CallbackServerContext* context, const operator_::v1::CloseSessionRequest* request,
    operator_::v1::CloseSessionResponse* /*response*/) {
  return OnWorker(*context, workers_, kCloseWithin, [this, request](Deadline deadline) {
    return sessions_.Close(request->session(), request->force(), deadline);
  });
}

grpc::ServerUnaryReactor* OperatorService::FreezeSession(
    grpc::CallbackServerContext* context, const operator_::v1::FreezeSessionRequest* request,
    operator_::v1::FreezeSessionResponse* response) {
  return OnWorker(
      *context, freezers_, kFreezeWithin,
      [this, context, request, response](Deadline deadline) -> absl::Status {
        if (request->reason().find_first_not_of(" \t\r\n") == std::string::npos) {
          return absl::InvalidArgumentError(
              "a freeze needs a reason, for those who meet the refusal and for the record");
        }
        ASSIGN_OR_RETURN(const std::string method,
                         sessions_.Freeze(request->session(),
                                          Printable(request->reason(), kMaxReason), deadline));
        response->set_method(method);
        // It stands still, whatever else did not work out.
        const absl::StatusOr<SessionView> view = sessions_.Get(request->session());
        if (view.ok() && !view->warning.empty()) {
          context->AddTrailingMetadata(kWarningKey, Printable(view->warning, kMaxReason));
        }
        TellGateways();
        return absl::OkStatus();
      });
}

void OperatorService::TellGateways() {
  if (desk_ != nullptr) {
    desk_->Changed();
  }
}

grpc::ServerUnaryReactor* OperatorService::ThawSession(
    grpc::CallbackServerContext* context, const operator_::v1::ThawSessionRequest* request,
    operator_::v1::ThawSessionResponse* /*response*/) {
  return OnWorker(*context, freezers_, kFreezeWithin, [this, request](Deadline deadline) {
    absl::Status thawed = sessions_.Thaw(request->session(), deadline);
    TellGateways();
    return thawed;
  });
}

grpc::ServerUnaryReactor* OperatorService::Diagnose(grpc::CallbackServerContext* context,
                                                    const operator_::v1::DiagnoseRequest* request,
                                                    operator_::v1::DiagnoseResponse* response) {
  return OnWorker(*context, workers_, kAskWithin, [this, request, response](Deadline /*deadline*/) {
    if (request->gateway_config().empty()) {
      *response = diagnose_(request->fix());
      return absl::OkStatus();
    }
    if (diagnose_gateway_ == nullptr) {
      return absl::UnimplementedError("no gateway's configuration is looked at here");
    }
    if (request->gateway_config_name().size() > kMaxConfigName) {
      return absl::InvalidArgumentError(
          fmt::format("gateway_config_name is longer than {} bytes", kMaxConfigName));
    }
    const absl::StatusOr<operator_::v1::DiagnoseResponse> found =
        diagnose_gateway_(request->gateway_config(), request->gateway_config_name());
    RETURN_IF_ERROR(found.status());
    *response = *found;
    return absl::OkStatus();
  });
}

}  // namespace creel
