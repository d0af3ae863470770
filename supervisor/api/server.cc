#include "supervisor/api/server.h"

#include <fmt/format.h>
#include <grp.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <grpcpp/support/channel_arguments.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "supervisor/api/act_recorder.h"
#include "supervisor/api/gateway_service.h"
#include "supervisor/api/incident_service.h"
#include "supervisor/api/operator_egress.h"
#include "supervisor/api/operator_service.h"
#include "supervisor/api/record_service.h"
#include "supervisor/api/secrets_service.h"
#include "supervisor/audit/event_limiter.h"
#include "supervisor/audit/events.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/sandbox/door_listener.h"
#include "supervisor/sandbox/grpc_threads.h"

namespace creel {
namespace {

constexpr int kMaxMessage = 4 << 20;
constexpr int kMaxStreams = 1024;  // on one connection
constexpr int kMaxFrame = 1 << 20;
constexpr int kWindow = 4 << 20;
// What all connections of a door may hold in gRPC's buffers.
constexpr size_t kMaxBuffers = 256u << 20;
// For gRPC's own reflection service alone, which blocks a thread per call; all else needs none.
constexpr int kMaxReflectionThreads = 4;

operator_::v1::Severity ToMessage(Severity severity) {
  switch (severity) {
    case Severity::kOk:
      return operator_::v1::SEVERITY_OK;
    case Severity::kWarning:
      return operator_::v1::SEVERITY_WARNING;
    case Severity::kError:
      return operator_::v1::SEVERITY_SEVERE;
  }
  return operator_::v1::SEVERITY_UNSPECIFIED;
}

operator_::v1::DiagnoseResponse ToMessage(const std::vector<Finding>& findings) {
  operator_::v1::DiagnoseResponse response;
  for (const Finding& finding : findings) {
    operator_::v1::Finding& message = *response.add_findings();
    message.set_id(finding.id);
    message.set_severity(ToMessage(finding.severity));
    message.set_title(finding.title);
    message.set_why(finding.why);
    message.set_fix(finding.fix);
    message.set_fixed(finding.fixed);
  }
  return response;
}

DiagnoseGatewayFunction DiagnoseGateway(const ApiServer::Rooms& rooms) {
  if (rooms.diagnose_gateway == nullptr) {
    return {};
  }
  return [diagnose = rooms.diagnose_gateway](
             const std::string& text,
             const std::string& name) -> absl::StatusOr<operator_::v1::DiagnoseResponse> {
    ASSIGN_OR_RETURN(const std::vector<Finding> findings, diagnose(text, name));
    return ToMessage(findings);
  };
}

absl::StatusOr<gid_t> GroupId(const std::string& name) {
  gid_t number = 0;
  const char* const end = name.data() + name.size();
  if (const auto [stop, error] = std::from_chars(name.data(), end, number);
      error == std::errc() && stop == end) {
    return number;
  }
  std::string buffer(16u << 10, '\0');
  group entry{};
  group* found = nullptr;
  const int error = getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (error != 0) {
    return ErrnoStatus(error, fmt::format("look up the group '{}'", name));
  }
  if (found == nullptr) {
    return absl::FailedPreconditionError(
        fmt::format("there is no group '{}'; make it with `groupadd --system {}`, or name another "
                    "in the configuration",
                    name, name));
  }
  return found->gr_gid;
}

// Where a door listens, for whom.
absl::StatusOr<UnixAddress> AddressOf(const Config& config, const DoorConfig& door,
                                      const std::string& name) {
  const std::string path = DoorPath(config, door, name);
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(
        fmt::format("the socket's path '{}' has {} bytes and the kernel takes at most {}; choose a "
                    "shorter one",
                    path, path.size(), sizeof(sockaddr_un::sun_path) - 1));
  }
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos || slash + 1 == path.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the socket's path '{}' must be absolute and end in a name", path));
  }
  UnixAddress address;
  address.directory = path.substr(0, slash + 1);
  address.name = path.substr(slash + 1);
  address.mode = door.mode;
  if (!door.group.empty()) {
    ASSIGN_OR_RETURN(address.group, GroupId(door.group));
  }
  return address;
}

std::unique_ptr<grpc::Server> Serve(const std::vector<grpc::Service*>& services,
                                    const std::string& name, AuditLog* acts,
                                    const std::string& page_key) {
  grpc::ServerBuilder builder;
  grpc::ResourceQuota quota(name);
  quota.Resize(kMaxBuffers).SetMaxThreads(kMaxReflectionThreads);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::CQ_TIMEOUT_MSEC, 60'000);
  builder.SetMaxReceiveMessageSize(kMaxMessage);
  builder.SetMaxSendMessageSize(kMaxMessage);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kMaxFrame);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindow);
  // The peers are processes of this host: what probes a network's delay only costs time here.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CENSUS, 0);
  for (grpc::Service* service : services) {
    builder.RegisterService(service);
  }
  if (acts != nullptr) {
    builder.experimental().SetInterceptorCreators(RecordActs(*acts, page_key));
  }
  return builder.BuildAndStart();
}

absl::StatusOr<std::unique_ptr<DoorListener>> Listen(
    LinkPool& links, grpc::Server& server, UnixAddress address,
    std::optional<std::vector<uint32_t>> allowed_uids, AuditLog* audit) {
  DoorListener::Options options;
  options.on_dropped = [name = address.name, audit, told = std::make_shared<EventLimiter>()](
                           const PeerCredentials& peer, const std::string& reason) {
    if (uint64_t left_out = 0; audit != nullptr && told->Allow(left_out)) {
      audit->Keep(PeerDropped(name, {}, reason)
                      .Number("uid", static_cast<int64_t>(peer.uid))
                      .Number("pid", peer.pid)
                      .Number("left_out", static_cast<int64_t>(left_out)));
    }
    spdlog::warn("{}: dropped a connection of uid {}, pid {}: {}", name, peer.uid, peer.pid,
                 Printable(reason, 512));
  };
  options.address = std::move(address);
  options.allowed_uids = std::move(allowed_uids);
  options.bounds.max_frame_bytes = kMaxFrame;
  return DoorListener::Listen(links, &server, std::move(options));
}

std::chrono::system_clock::time_point WallTime(Deadline deadline) {
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(
             deadline - std::chrono::steady_clock::now());
}

}  // namespace

std::string DoorPath(const Config& config, const DoorConfig& door, const std::string& name) {
  return door.path.empty() ? config.paths.run_dir + "/" + name : door.path;
}

// Destroyed from the last member to the first: listeners, then servers, then what they serve.
struct ApiServer::Impl {
  explicit Impl(const Rooms& rooms)
      : gateway(rooms.sessions, rooms.gate, rooms.config.sandbox.workdir, rooms.desk),
        operator_door(
            rooms.sessions, rooms.engine, rooms.config,
            [diagnose = rooms.diagnose](bool fix) { return ToMessage(diagnose(fix)); }, rooms.desk,
            rooms.reload, DiagnoseGateway(rooms)),
        page(rooms.sessions, rooms.engine, rooms.config.sandbox.workdir, rooms.incidents,
             rooms.config.paths.state_dir + "/incidents", rooms.page) {
    if (rooms.audit != nullptr) {
      record.emplace(*rooms.audit);
    }
    if (rooms.audit != nullptr && rooms.incidents != nullptr) {
      incidents.emplace(*rooms.incidents, *rooms.audit);
    }
    if (rooms.secrets != nullptr) {
      secrets.emplace(*rooms.secrets);
    }
    if (rooms.egress != nullptr) {
      egress = std::make_unique<OperatorEgress>(rooms.sessions, *rooms.egress, rooms.desk);
    }
  }

  GatewayService gateway;
  OperatorService operator_door;
  PageService page;
  // What only the page knows: calls with it are the page's.
  const std::string page_key = Hex(RandomBytes(32));
  std::optional<RecordService> record;
  std::optional<IncidentService> incidents;
  std::optional<SecretsService> secrets;
  std::unique_ptr<OperatorEgress> egress;
  std::unique_ptr<grpc::Server> gateway_server;
  std::unique_ptr<grpc::Server> operator_server;
  std::unique_ptr<DoorListener> gateway_listener;
  std::unique_ptr<DoorListener> operator_listener;
  bool stopped = false;
};

ApiServer::ApiServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<ApiServer>> ApiServer::Start(const Rooms& rooms) {
  const Config& config = rooms.config;
  ASSIGN_OR_RETURN(UnixAddress gateway_address, AddressOf(config, config.gateway, "gateway.sock"));
  ASSIGN_OR_RETURN(UnixAddress operator_address,
                   AddressOf(config, config.operator_door, "operator.sock"));
  HoldGrpcThreads();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  auto impl = std::make_unique<Impl>(rooms);
  impl->gateway_server = Serve({&impl->gateway}, "gateway.sock", nullptr, "");
  std::vector<grpc::Service*> services{&impl->operator_door, &impl->page};
  if (impl->record) {
    services.push_back(&*impl->record);
  }
  if (impl->incidents) {
    services.push_back(&*impl->incidents);
  }
  if (impl->secrets) {
    services.push_back(&*impl->secrets);
  }
  if (impl->egress != nullptr) {
    services.push_back(impl->egress.get());
  }
  impl->operator_server = Serve(services, "operator.sock", rooms.audit, impl->page_key);
  // Stopped by its destructor, should a listener fail.
  std::unique_ptr<ApiServer> server(new ApiServer(std::move(impl)));
  Impl& doors = *server->impl_;
  if (doors.gateway_server == nullptr || doors.operator_server == nullptr) {
    return absl::InternalError("gRPC does not start a server; its own log says why");
  }
  std::optional<std::vector<uint32_t>> gateway_uids;
  if (!config.gateway_uids.empty()) {
    gateway_uids = config.gateway_uids;
    gateway_uids->push_back(0);
  }
  ASSIGN_OR_RETURN(doors.gateway_listener,
                   Listen(rooms.links, *doors.gateway_server, std::move(gateway_address),
                          std::move(gateway_uids), rooms.audit));
  ASSIGN_OR_RETURN(doors.operator_listener,
                   Listen(rooms.links, *doors.operator_server, std::move(operator_address),
                          std::nullopt, rooms.audit));
  return server;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> ApiServer::OperatorChannel() {
  // Not gRPC's channel within a process: in 1.51 the last message of a stream whose reader goes
  // away is never done with there, and the server waits for it when it is to end.
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
    return ErrnoStatus(errno, "make a pair of sockets");
  }
  grpc::AddInsecureChannelFromFd(impl_->operator_server.get(), pair[0]);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(2 * kMaxMessage);
  return grpc::CreateCustomInsecureChannelFromFd("creeld", pair[1], arguments);
}

std::vector<std::pair<std::string, std::string>> ApiServer::PageCaller(
    const std::string& who) const {
  return {{std::string(kPageKeyMetadata), impl_->page_key}, {std::string(kPageByMetadata), who}};
}

ApiServer::~ApiServer() { Stop(std::chrono::steady_clock::now()); }

void ApiServer::Stop(Deadline deadline) {
  if (std::exchange(impl_->stopped, true)) {
    return;
  }
  for (const auto& listener : {&impl_->gateway_listener, &impl_->operator_listener}) {
    if (*listener != nullptr) {
      (*listener)->StopListening();
    }
  }
  // Both at once, as each may take until the deadline.
  std::thread other([this, deadline] {
    if (impl_->operator_server != nullptr) {
      impl_->operator_server->Shutdown(WallTime(deadline));
    }
  });
  if (impl_->gateway_server != nullptr) {
    impl_->gateway_server->Shutdown(WallTime(deadline));
  }
  other.join();
}

}  // namespace creel
