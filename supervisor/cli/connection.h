#pragma once

#include <memory>
#include <string>

#include "creel/gateway/v1/gateway.grpc.pb.h"
#include "creel/operator/v1/operator.grpc.pb.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel::cli {

// What every command is told.
struct Globals {
  std::string socket;           // of the gateway's door
  std::string operator_socket;  // of the operator's
  bool json = false;
};

// The doors in `run_dir`, unless $CREEL_GATEWAY_SOCKET and $CREEL_OPERATOR_SOCKET name others.
// `run_dir` is $CREEL_RUN_DIR, else /run/creel; the gateway's door may be in `gateway/` there.
Globals DefaultGlobals();

// kUnavailable: nobody listens there; kPermissionDenied: we may not; the message says what to do.
absl::StatusOr<std::unique_ptr<gateway::v1::Gateway::Stub>> ConnectGateway(const Globals& globals);
// The connection itself, for those who stay longer than the supervisor may. A channel on a
// connected socket neither connects again nor tells that the peer is gone; `socket` does (POLLHUP).
// It is not to be read.
struct GatewayLink {
  std::shared_ptr<grpc::Channel> channel;
  UniqueFd socket;
};
absl::StatusOr<GatewayLink> LinkToGateway(const Globals& globals);
absl::StatusOr<std::unique_ptr<operator_::v1::Operator::Stub>> ConnectOperator(
    const Globals& globals);
// The operator's door for its other services.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OperatorChannel(const Globals& globals);

}  // namespace creel::cli
