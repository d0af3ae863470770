#include "supervisor/sandbox/link_pool.h"

#include "supervisor/sandbox/grpc_threads.h"
#include "supervisor/sandbox/guard_proof.h"

namespace creel {

absl::StatusOr<std::unique_ptr<LinkPool>> LinkPool::Start() {
  HoldGrpcThreads();
  std::unique_ptr<LinkPool> pool(new LinkPool);
  ASSIGN_OR_RETURN(pool->loop_, EventLoop::Start("links"));
  ASSIGN_OR_RETURN(pool->guard_, FrameGuard::Start());
  RETURN_IF_ERROR(ProveGuardedCalls(*pool->guard_));
  return pool;
}

LinkPool::~LinkPool() {
  guard_.reset();
  MutexLock lock(mu_);
  while (calls_ > 0) {
    no_calls_.Wait(mu_);
  }
}

bool LinkPool::TakePlace() {
  if (unproved_ >= kMaxUnproved) {
    return false;
  }
  ++unproved_;
  return true;
}

void LinkPool::CallBegins() {
  MutexLock lock(mu_);
  ++calls_;
}

void LinkPool::CallEnds() {
  MutexLock lock(mu_);
  if (--calls_ == 0) {
    no_calls_.SignalAll();
  }
}

}  // namespace creel
