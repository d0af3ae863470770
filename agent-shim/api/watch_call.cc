#include "agent-shim/api/watch_call.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "agent-shim/api/file_reactors.h"
#include "agent-shim/files/watch.h"
#include "supervisor/base/status.h"

namespace creel::shim {

WatchCall::WatchCall(const FileRoots& roots, const ToolIdentity& tool, WorkerPool& pool,
                     std::atomic<int>& running, const v1::WatchArgs& args)
    : roots_(roots),
      tool_(tool),
      running_(running),
      args_(args),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_.valid()) {
    Finish(ToGrpc(ErrnoStatus(errno, "eventfd")));
    return;
  }
  if (running_.fetch_add(1) >= kMaxWatches) {
    running_.fetch_sub(1);
    Finish(ToGrpc(absl::ResourceExhaustedError(
        fmt::format("{} watches run already", static_cast<int>(kMaxWatches)))));
    return;
  }
  // Here, as the pool's threads have given up the right to change their identity.
  inotify_ = MakeInotifyAs(tool_);
  pool.Submit([this](const absl::Status& identity) {
    const absl::Status status = identity.ok() ? Run() : identity;
    running_.fetch_sub(1);
    Finish(ToGrpc(status));
  });
}

void WatchCall::OnCancel() {
  cancel_.Set();
  const uint64_t one = 1;
  // It cannot fail: the counter is far from full.
  (void)!write(wake_.get(), &one, sizeof one);
}

void WatchCall::OnWriteDone(bool ok) {
  MutexLock lock(mu_);
  sending_ = false;
  broken_ = broken_ || !ok;
  sent_.SignalAll();
}

absl::Status WatchCall::Run() {
  ASSIGN_OR_RETURN(const std::unique_ptr<Watcher> watcher,
                   Watcher::Open(roots_, std::move(inotify_), args_, cancel_));
  while (true) {
    ASSIGN_OR_RETURN(v1::WatchEvent event, watcher->Next(wake_.get(), cancel_));
    RETURN_IF_ERROR(Send(std::move(event)));
  }
}

absl::Status WatchCall::Send(v1::WatchEvent event) {
  {
    MutexLock lock(mu_);
    sending_ = true;
  }
  *response_.mutable_event() = std::move(event);
  StartWrite(&response_);
  MutexLock lock(mu_);
  while (sending_) {
    sent_.Wait(mu_);
  }
  return broken_ ? absl::CancelledError("the reader went away") : absl::OkStatus();
}

}  // namespace creel::shim
