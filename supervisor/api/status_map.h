#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "supervisor/base/status.h"

namespace creel {

// Our errors as gRPC's, which share their numbers. The message is made printable and bounded, as
// parts of it may come from a sandbox.
grpc::Status ToGrpc(const absl::Status& status);

// An error as a shim told it. The shim may be hostile: codes that a verb does not document become
// INTERNAL, the message is made printable and bounded, details are left out.
grpc::Status FromShim(const grpc::Status& status);

// "NOT_FOUND: no such file", or "ok"; for the record.
std::string Outcome(const grpc::Status& status);

}  // namespace creel
