#include "supervisor/api/status_map.h"

#include <fmt/format.h>

#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kMaxMessage = 1024;

bool IsDocumented(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::NOT_FOUND:
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNAVAILABLE:
      return true;
    default:
      return false;
  }
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  return {static_cast<grpc::StatusCode>(status.code()),
          Printable({status.message().data(), status.message().size()}, kMaxMessage)};
}

grpc::Status FromShim(const grpc::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  const std::string message = Printable(status.error_message(), kMaxMessage);
  if (!IsDocumented(status.error_code())) {
    return {grpc::StatusCode::INTERNAL,
            fmt::format("the sandbox's shim ended the call with code {}: {}",
                        static_cast<int>(status.error_code()), message)};
  }
  return {status.error_code(), message};
}

std::string Outcome(const grpc::Status& status) {
  if (status.ok()) {
    return "ok";
  }
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  return fmt::format("{}: {}", absl::StatusCodeToString(code), status.error_message());
}

}  // namespace creel
