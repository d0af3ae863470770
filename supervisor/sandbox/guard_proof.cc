#include "supervisor/sandbox/guard_proof.h"

#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/support/channel_arguments.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/guarded_calls.h"

namespace creel {
namespace {

using std::chrono::milliseconds;

constexpr std::chrono::seconds kProofWithin{10};
// What a server says first, and a word of its that a client answers.
constexpr std::string_view kServerSettings{"\0\0\0\4\0\0\0\0\0", 9};
constexpr std::string_view kPing{"\0\0\10\6\0\0\0\0\0creelown", 17};
// The answer that shows that gRPC has read so far.
constexpr std::string_view kPong{"\0\0\10\6\1\0\0\0\0creelown", 17};
// A frame that no server of ours may send.
constexpr std::string_view kPushPromise{"\0\0\4\5\4\0\0\0\1\0\0\0\2", 13};

absl::Status PastTheGuard(std::string_view what) {
  return absl::FailedPreconditionError(fmt::format(
      "this build's gRPC does not go through the frame guard ({}); creeld must be linked "
      "with gRPC as a shared library that receives with recvmsg",
      what));
}

// The call that makes gRPC look at the channel; nobody answers it.
struct ProofCall {
  std::unique_ptr<shim::v1::Shim::Stub> stub;
  grpc::ClientContext context;
  shim::v1::GetStatusRequest request;
  shim::v1::GetStatusResponse response;
};

// What the guard tells of the end, and gRPC of the call.
struct ProofEnd {
  Mutex mu;
  CondVar changed;
  std::optional<absl::Status> why ABSL_GUARDED_BY(mu);
  bool called_back ABSL_GUARDED_BY(mu) = false;

  // False: it has not ended by then.
  bool Wait(Deadline deadline) {
    MutexLock lock(mu);
    while (!why.has_value() || !called_back) {
      if (!changed.WaitUntil(mu, deadline)) {
        return false;
      }
    }
    return true;
  }
};

// Reads until `text` has come; all bytes that came, or nothing if it did not.
std::string ReadUntil(int fd, std::string_view text, Deadline deadline) {
  std::string all;
  while (all.find(text) == std::string::npos) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd waiting = {.fd = fd, .events = POLLIN, .revents = 0};
    char buffer[4096];
    if (left.count() <= 0 || poll(&waiting, 1, static_cast<int>(left.count())) <= 0) {
      return {};
    }
    const ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
    if (got <= 0) {
      return {};
    }
    all.append(buffer, static_cast<size_t>(got));
  }
  return all;
}

bool SendAll(int fd, std::string_view bytes) {
  return send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

}  // namespace

absl::Status ProveGuardedCalls(FrameGuard& guard, const std::function<void(int fd)>& tamper) {
  const Deadline deadline = After(kProofWithin);
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return ErrnoStatus(errno, "socketpair");
  }
  const UniqueFd peer(pair[0]);
  const size_t before = guard.connections();
  const auto end = std::make_shared<ProofEnd>();
  ASSIGN_OR_RETURN(FrameGuard::Guarded ours,
                   guard.Guard(UniqueFd(pair[1]), FrameBounds{}, [end](const absl::Status& why) {
                     MutexLock lock(end->mu);
                     end->why = why;
                     end->changed.SignalAll();
                   }));
  const int fd = ours.inner.get();
  if (tamper) {
    tamper(fd);
  }
  auto call = std::make_shared<ProofCall>();
  call->stub = shim::v1::Shim::NewStub(grpc::CreateCustomInsecureChannelFromFd(
      "guard", ours.inner.release(), grpc::ChannelArguments()));
  call->context.set_deadline(std::chrono::system_clock::now() + kProofWithin);
  call->stub->async()->GetStatus(&call->context, &call->request, &call->response,
                                 [end, call](const grpc::Status&) {
                                   MutexLock lock(end->mu);
                                   end->called_back = true;
                                   end->changed.SignalAll();
                                 });
  // Whatever comes of it, the call ends with the connection.
  absl::Status proved;
  const size_t told = kServerSettings.size() + kPing.size();
  if (!SendAll(peer.get(), std::string(kServerSettings) + std::string(kPing))) {
    proved = ErrnoStatus(errno, "send");
  }
  const std::string said = ReadUntil(peer.get(), kPong, deadline);
  const std::optional<GuardedTraffic> traffic = TrafficOf(fd);
  if (said.empty() || !traffic.has_value()) {
    proved = PastTheGuard("no conversation came about");
  } else if (traffic->received != told || traffic->frames != 2) {
    proved = PastTheGuard(
        fmt::format("of {} bytes that it received {} were seen", told, traffic->received));
  } else if (traffic->sent < said.size()) {
    proved = PastTheGuard(
        fmt::format("of {} bytes that it sent {} were seen", said.size(), traffic->sent));
  }
  SendAll(peer.get(), kPushPromise);
  if (proved.ok() && !end->Wait(deadline)) {
    proved = PastTheGuard("a broken bound did not end the connection");
  }
  if (proved.ok()) {
    MutexLock lock(end->mu);
    if (!absl::IsInvalidArgument(*end->why)) {
      proved = PastTheGuard("a broken bound was not seen");
    }
  }
  guard.Drop(ours.id, absl::CancelledError("the proof is over"));
  call->context.TryCancel();
  // It keeps the channel, and so the connection.
  call.reset();
  while (proved.ok() && guard.connections() > before) {
    if (std::chrono::steady_clock::now() > deadline) {
      proved = PastTheGuard("its close was not seen");
    }
    std::this_thread::sleep_for(milliseconds(1));
  }
  return proved;
}

}  // namespace creel
