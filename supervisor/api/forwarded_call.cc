#include "supervisor/api/forwarded_call.h"

#include <chrono>
#include <utility>

#include "supervisor/api/status_map.h"
#include "supervisor/api/trace.h"

namespace creel {
namespace {

// How long a call whose connection broke waits to learn what went away. Calls are to end within a
// second.
constexpr std::chrono::milliseconds kPatience{700};

}  // namespace

void ForwardedCall::BoundBy(const grpc::CallbackServerContext& caller,
                            std::chrono::milliseconds otherwise) {
  trace_ = TraceparentOf(caller);
  const auto now = std::chrono::system_clock::now();
  // A caller that gave no deadline shows one centuries away.
  if (caller.deadline() < now + std::chrono::hours(24 * 365)) {
    upstream_.set_deadline(caller.deadline());
  } else if (otherwise.count() > 0) {
    upstream_.set_deadline(now + otherwise);
  }
}

void ForwardedCall::Begin(CallGate& gate, ToolCall call) {
  call.trace = trace_;
  gate.Begin(std::move(call),
             [self = shared_from_this()](absl::StatusOr<std::shared_ptr<CallTicket>> ticket) {
               self->Let(std::move(ticket));
             });
}

void ForwardedCall::Let(absl::StatusOr<std::shared_ptr<CallTicket>> ticket) {
  if (!ticket.ok()) {
    End(ToGrpc(ticket.status()));
    return;
  }
  std::shared_ptr<shim::v1::Shim::StubInterface> stub = (*ticket)->shared_shim();
  {
    MutexLock lock(mu_);
    if (ended_) {
      return;
    }
    ticket_ = *ticket;
    stub_ = stub;
  }
  (*ticket)->OnLost([weak = weak_from_this()](const absl::Status& why) {
    if (const auto self = weak.lock()) {
      self->End(ToGrpc(why));
    }
  });
  {
    MutexLock lock(mu_);
    if (ended_) {
      return;
    }
  }
  // Should it end just now, the context has been cancelled and the call ends as it starts.
  StartUpstream(*stub->async());
}

void ForwardedCall::UpstreamEnded(const grpc::Status& status) {
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE) {
    End(FromShim(status));
    return;
  }
  MutexLock lock(mu_);
  if (ended_) {
    return;
  }
  // Weak, as the alarm keeps its callback; the server's side keeps the call until it has ended.
  patience_.Set(std::chrono::system_clock::now() + kPatience, [weak = weak_from_this()](bool) {
    if (const auto self = weak.lock()) {
      self->End({grpc::StatusCode::UNAVAILABLE,
                 "the connection to the sandbox's shim broke; the call may or may not have had its "
                 "effect"});
    }
  });
}

void ForwardedCall::End(const grpc::Status& status) {
  std::shared_ptr<CallTicket> ticket;
  {
    MutexLock lock(mu_);
    if (ended_) {
      return;
    }
    ended_ = true;
    // Not given back here, as this may be the ticket's own callback; it goes with the call.
    ticket = ticket_;
  }
  patience_.Cancel();
  upstream_.TryCancel();
  if (ticket != nullptr && status.error_code() != grpc::StatusCode::CANCELLED) {
    ticket->Finish(Outcome(status));
  }
  Conclude(status);
}

void ForwardedCall::CallerLeft() { End({grpc::StatusCode::CANCELLED, "the caller went away"}); }

}  // namespace creel
