#pragma once

#include <grpcpp/support/server_callback.h>

#include <string>

#include "creel/gateway/v1/gateway.grpc.pb.h"
#include "supervisor/session/call_gate.h"

namespace creel {

// The two calls that carry a command's whole conversation. The returned reactor owns itself.
// `trace` is the caller's traceparent.
grpc::ServerBidiReactor<gateway::v1::ExecRequest, gateway::v1::ExecResponse>* ServeExec(
    CallGate& gate, std::string trace);
grpc::ServerBidiReactor<gateway::v1::AttachProcessRequest, gateway::v1::AttachProcessResponse>*
ServeAttach(CallGate& gate, std::string trace);

}  // namespace creel
