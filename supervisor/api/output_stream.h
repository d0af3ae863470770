#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>

#include "creel/operator/v1/page.pb.h"
#include "supervisor/sandbox/remote_process.h"

namespace creel {

// Serves ReadOutput from a process that was found. The returned reactor owns itself.
grpc::ServerWriteReactor<operator_::v1::ReadOutputResponse>* ServeOutput(
    std::shared_ptr<RemoteProcess> process, const operator_::v1::ReadOutputRequest& request);

// The same for a call that cannot be served.
grpc::ServerWriteReactor<operator_::v1::ReadOutputResponse>* RefuseOutput(
    const grpc::Status& status);

}  // namespace creel
