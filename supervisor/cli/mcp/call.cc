#include "supervisor/cli/mcp/call.h"

#include <poll.h>

namespace creel::cli::mcp {

absl::StatusOr<std::shared_ptr<gateway::v1::Gateway::Stub>> Door::Stub() {
  MutexLock lock(mu_);
  pollfd peer{link_.socket.get(), POLLRDHUP, 0};
  const bool stands = stub_ != nullptr && poll(&peer, 1, 0) == 0;
  if (!stands) {
    stub_ = nullptr;
    ASSIGN_OR_RETURN(link_, LinkToGateway(globals_));
    stub_ = gateway::v1::Gateway::NewStub(link_.channel);
  }
  return stub_;
}

void Cancellation::Cancel() {
  MutexLock lock(mu_);
  cancelled_ = true;
  if (context_ != nullptr) {
    context_->TryCancel();
  }
}

bool Cancellation::cancelled() {
  MutexLock lock(mu_);
  return cancelled_;
}

CancellableContext::CancellableContext(Cancellation& cancellation) : cancellation_(cancellation) {
  MutexLock lock(cancellation_.mu_);
  cancellation_.context_ = &context_;
  if (cancellation_.cancelled_) {
    context_.TryCancel();
  }
}

CancellableContext::~CancellableContext() {
  MutexLock lock(cancellation_.mu_);
  cancellation_.context_ = nullptr;
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  std::string message = status.error_message();
  if (message.empty()) {
    message = status.error_code() == grpc::StatusCode::UNAVAILABLE
                  ? "the supervisor went away; try again"
                  : "the supervisor refused without a reason";
  }
  return {static_cast<absl::StatusCode>(status.error_code()), message};
}

}  // namespace creel::cli::mcp
