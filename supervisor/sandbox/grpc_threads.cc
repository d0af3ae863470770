#include "supervisor/sandbox/grpc_threads.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>
#include <future>
#include <memory>

#include "creel/shim/v1/shim.grpc.pb.h"

namespace creel {
namespace {

// A call that cannot succeed, on a channel that is never let go: a channel takes its share of the
// threads with its first call.
struct Holder {
  Holder() : stub(shim::v1::Shim::NewStub(grpc::CreateChannel("unix:/nonexistent/creel",
                                                             grpc::InsecureChannelCredentials()))) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now());
    shim::v1::GetStatusRequest request;
    shim::v1::GetStatusResponse response;
    std::promise<void> done;
    stub->async()->GetStatus(&context, &request, &response,
                             [&done](const grpc::Status&) { done.set_value(); });
    done.get_future().wait();
  }

  std::unique_ptr<shim::v1::Shim::Stub> stub;
};

}  // namespace

void HoldGrpcThreads() {
  static const Holder* const holder = new Holder;
  static_cast<void>(holder);
}

}  // namespace creel
