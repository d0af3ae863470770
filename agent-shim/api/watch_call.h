#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>

#include "agent-shim/files/cancel.h"
#include "agent-shim/files/identity.h"
#include "agent-shim/files/roots.h"
#include "agent-shim/files/worker_pool.h"
#include "creel/shim/v1/shim.pb.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// A Watch call. It waits for hours, so it has a thread to itself, from a pool that only watches
// use; one too many is refused with kResourceExhausted.
class WatchCall final : public grpc::ServerWriteReactor<v1::WatchResponse> {
 public:
  // As many as may run at once.
  static constexpr int kMaxWatches = 16;

  // `running` counts the calls that run on `pool`. All must outlive the call.
  WatchCall(const FileRoots& roots, const ToolIdentity& tool, WorkerPool& pool,
            std::atomic<int>& running, const v1::WatchArgs& args);

 private:
  void OnCancel() override;
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

  absl::Status Run();
  // Waits until the event is on its way, so that a slow reader is felt by the kernel's queue, which
  // is bounded and says when it overflows.
  absl::Status Send(v1::WatchEvent event);

  const FileRoots& roots_;
  const ToolIdentity tool_;
  std::atomic<int>& running_;
  const v1::WatchArgs args_;
  Cancel cancel_;
  // Readable once the call is cancelled.
  const UniqueFd wake_;
  absl::StatusOr<UniqueFd> inotify_;
  v1::WatchResponse response_;

  Mutex mu_;
  CondVar sent_;
  bool sending_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace creel::shim
