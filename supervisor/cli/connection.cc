#include "supervisor/cli/connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/support/channel_arguments.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "supervisor/base/escape.h"

namespace creel::cli {
namespace {

std::string Env(const char* name, const std::string& otherwise) {
  const char* const value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// A channel on a socket that is connected already: no resolver, no balancer, and the kernel's own
// answer when nobody is there.
absl::StatusOr<GatewayLink> Connect(const std::string& path, const char* option) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        fmt::format("the socket's path '{}' is longer than the {} bytes that the kernel takes; "
                    "choose a shorter one with {}",
                    Printable(path, 200), sizeof(address.sun_path) - 1, option));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "socket");
  }
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    switch (errno) {
      case EACCES:
      case EPERM:
        return absl::PermissionDeniedError(
            fmt::format("you may not open '{}'; use sudo, or join the group that owns it", path));
      default:
        return absl::UnavailableError(
            fmt::format("no supervisor answers at '{}' ({}); start creeld, or name its socket with "
                        "{} or its run folder with $CREEL_RUN_DIR",
                        path, std::strerror(errno), option));
    }
  }
  fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetMaxReceiveMessageSize(8 << 20);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, (1 << 20) - 1);
  UniqueFd peer(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  return GatewayLink{
      .channel = grpc::CreateCustomInsecureChannelFromFd("creel", fd.release(), arguments),
      .socket = std::move(peer)};
}

}  // namespace

Globals DefaultGlobals() {
  const std::string run_dir = Env("CREEL_RUN_DIR", "/run/creel");
  // It has a folder of its own where a gateway's container is given that and nothing else.
  const std::string apart = run_dir + "/gateway/gateway.sock";
  const std::string door = access(apart.c_str(), F_OK) == 0 ? apart : run_dir + "/gateway.sock";
  return {.socket = Env("CREEL_GATEWAY_SOCKET", door),
          .operator_socket = Env("CREEL_OPERATOR_SOCKET", run_dir + "/operator.sock")};
}

absl::StatusOr<GatewayLink> LinkToGateway(const Globals& globals) {
  return Connect(globals.socket, "--socket");
}

absl::StatusOr<std::unique_ptr<gateway::v1::Gateway::Stub>> ConnectGateway(const Globals& globals) {
  ASSIGN_OR_RETURN(const GatewayLink link, LinkToGateway(globals));
  return gateway::v1::Gateway::NewStub(link.channel);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> OperatorChannel(const Globals& globals) {
  ASSIGN_OR_RETURN(const GatewayLink link, Connect(globals.operator_socket, "--operator-socket"));
  return link.channel;
}

absl::StatusOr<std::unique_ptr<operator_::v1::Operator::Stub>> ConnectOperator(
    const Globals& globals) {
  ASSIGN_OR_RETURN(const auto channel, OperatorChannel(globals));
  return operator_::v1::Operator::NewStub(channel);
}

}  // namespace creel::cli
