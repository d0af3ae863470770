#pragma once

#include <grpcpp/server_context.h>

#include <string>

namespace creel {

// The `traceparent` (W3C Trace Context) that a call carries as metadata; empty if it carries none
// or what it carries is none.
std::string TraceparentOf(const grpc::ServerContextBase& context);

}  // namespace creel
