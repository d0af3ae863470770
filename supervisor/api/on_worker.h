#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "supervisor/api/status_map.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/base/clock.h"

namespace creel {

// Serves a unary call on a worker: `job` gets the point by which it must have ended and returns the
// call's status. Request and response stay valid until then.
template <class Job>
grpc::ServerUnaryReactor* OnWorker(grpc::CallbackServerContext& context, WorkerPool& workers,
                                   std::chrono::nanoseconds at_most, Job job) {
  grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
  const std::chrono::nanoseconds left = context.deadline() - std::chrono::system_clock::now();
  const Deadline deadline = After(std::min(at_most, left));
  const bool taken = workers.Submit([reactor, deadline, job = std::move(job)]() mutable {
    const absl::Status status = job(deadline);
    reactor->Finish(ToGrpc(status));
  });
  if (!taken) {
    reactor->Finish(
        {grpc::StatusCode::RESOURCE_EXHAUSTED,
         "the supervisor is busy with as many calls of this kind as it may; try again"});
  }
  return reactor;
}

}  // namespace creel
