// creel-shim: PID 1 of a sandbox.

#include <absl/synchronization/mutex.h>
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_posix.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "agent-shim/api/shim_service.h"
#include "agent-shim/api/still_grpc.h"
#include "agent-shim/exec/event_loop.h"
#include "agent-shim/exec/nursery.h"
#include "agent-shim/link/caller.h"
#include "agent-shim/link/harden.h"
#include "agent-shim/link/identity.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr int kMaxMessage = 4 << 20;
constexpr int kMaxFrame = (1 << 20) - 1;
constexpr size_t kQuota = 64u << 20;
constexpr size_t kThreadStack = 256u << 10;

// An idle sandbox is to cost little: one arena for all threads, and stacks of a size that gRPC's
// threads need. Freed memory is kept while commands run, since giving each piece of output back to
// the kernel costs more than carrying it; the process table gives it back when all is quiet.
void LimitMemory() {
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
  mallopt(M_TOP_PAD, 256 << 10);
  mallopt(M_MMAP_THRESHOLD, 2 << 20);
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) == 0) {
    pthread_attr_setstacksize(&attributes, kThreadStack);
    pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
  }
}

std::unique_ptr<grpc::Server> MakeServer(ShimService& service) {
  grpc::ResourceQuota quota("shim");
  quota.Resize(kQuota);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxMessage);
  builder.SetMaxSendMessageSize(kMaxMessage);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kMaxFrame);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kMaxMessage);
  // Neither pings nor probes: the peer is on the same machine, and a hang-up is seen at once.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  builder.RegisterService(&service);
  return builder.BuildAndStart();
}

absl::StatusOr<UniqueFd> MakeStopSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  UniqueFd fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "make a signalfd");
  }
  return fd;
}

absl::Status Serve(const std::string& path) {
  const bool is_init = getpid() == 1;
  LimitMemory();
  // Debian builds absl with its checks, and this one takes a lock of the whole process for each
  // lock that gRPC takes.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  RETURN_IF_ERROR(Harden());
  if (!is_init && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
    return ErrnoStatus(errno, "become the reaper of orphans");
  }
  ASSIGN_OR_RETURN(UniqueFd stop, MakeStopSignal());
  // Forked before there are threads, and small.
  ASSIGN_OR_RETURN(std::unique_ptr<Nursery> nursery, Nursery::Start());
  ASSIGN_OR_RETURN(std::unique_ptr<EventLoop> loop, EventLoop::Start());
  RunEventEngineOn(*loop);
  Identity identity;
  ShimService service(*loop, *nursery, identity, is_init,
                      path.substr(0, path.rfind('/') + 1) + "egress.sock");
  std::unique_ptr<grpc::Server> server = MakeServer(service);
  if (server == nullptr) {
    return absl::InternalError("gRPC does not start");
  }
  StopTimerThread();
  Caller caller(
      {.path = path, .stop_fd = stop.get()},
      [&server](UniqueFd connection) {
        grpc::AddInsecureChannelFromFd(server.get(), connection.release());
      },
      [&service, &identity] {
        service.ConnectionEnded();
        identity.ReadBinaryHash();
      });
  caller.Run();
  // As PID 1 this ends all processes of the sandbox, so there is nothing to be tidied.
  _exit(0);
}

}  // namespace
}  // namespace creel::shim

int main(int argc, char** argv) {
  std::string path = "/run/creel/shim.sock";
  if (argc == 2 && strcmp(argv[1], "--version") == 0) {
    puts(CREEL_VERSION);
    return 0;
  }
  if (argc == 3 && strcmp(argv[1], "--connect") == 0) {
    path = argv[2];
  } else if (argc != 1 || getpid() != 1) {
    fputs("creel-shim is started by creeld as the first process of a sandbox\n", stderr);
    return 2;
  }
  const absl::Status status = creel::shim::Serve(path);
  fprintf(stderr, "creel-shim: %s\n", std::string(status.message()).c_str());
  return 1;
}
