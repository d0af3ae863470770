#pragma once

#include <grpcpp/support/server_callback.h>

#include "creel/gateway/v1/gateway.pb.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Serves Gateway.WatchState: the state now, then whenever `desk` changes. Without a desk it ends
// with UNIMPLEMENTED. Both must outlive the call.
grpc::ServerWriteReactor<gateway::v1::WatchStateResponse>* ServeWatchState(
    PolicyDesk* desk, const SessionManager& sessions);

}  // namespace creel
