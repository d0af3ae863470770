#pragma once

#include <grpcpp/support/server_callback.h>

#include <map>
#include <optional>
#include <string>

#include "creel/operator/v1/operator.grpc.pb.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/base/mutex.h"
#include "supervisor/engine/engine.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// What sandboxes use, asked of the engine. Keeps each container's last sample, as CPU shares need
// two. Blocks; thread-safe.
class UsageMeter {
 public:
  // Both must outlive the meter.
  UsageMeter(Engine& engine, const SessionManager& sessions)
      : engine_(engine), sessions_(sessions) {}

  absl::StatusOr<operator_::v1::Usage> Measure(const SessionView& view, Deadline deadline);
  // The engine's process table of a session, at most 1,000 lines.
  absl::Status AddProcesses(const SessionView& view, Deadline deadline,
                            operator_::v1::WatchUsageResponse& response);
  const SessionManager& sessions() const { return sessions_; }

 private:
  Engine& engine_;
  const SessionManager& sessions_;
  Mutex mu_;
  std::map<std::string, ContainerStats> samples_ ABSL_GUARDED_BY(mu_);  // by container id
};

// Serves WatchUsage: once a second one job on `workers`, nothing in between. The returned reactor
// owns itself; `meter` and `workers` must outlive the server.
grpc::ServerWriteReactor<operator_::v1::WatchUsageResponse>* ServeWatchUsage(
    UsageMeter& meter, WorkerPool& workers, const std::string& session);

}  // namespace creel
