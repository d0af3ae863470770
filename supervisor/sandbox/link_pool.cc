#include "supervisor/sandbox/link_pool.h"

#include "supervisor/sandbox/grpc_threads.h"

namespace creel {

absl::StatusOr<std::unique_ptr<LinkPool>> LinkPool::Start() {
  HoldGrpcThreads();
  std::unique_ptr<LinkPool> pool(new LinkPool);
  ASSIGN_OR_RETURN(pool->loop_, EventLoop::Start("links"));
  ASSIGN_OR_RETURN(pool->guard_, FrameGuard::Start());
  return pool;
}

bool LinkPool::TakePlace() {
  if (unproved_ >= kMaxUnproved) {
    return false;
  }
  ++unproved_;
  return true;
}

}  // namespace creel
