#include "supervisor/api/watch_state.h"

#include <memory>

#include "supervisor/api/policy_convert.h"
#include "supervisor/base/mutex.h"

namespace creel {
namespace {

class Watch final : public grpc::ServerWriteReactor<gateway::v1::WatchStateResponse>,
                    public std::enable_shared_from_this<Watch> {
 public:
  Watch(PolicyDesk* desk, const SessionManager& sessions) : desk_(desk), sessions_(sessions) {}

  void Run() {
    self_ = shared_from_this();
    if (desk_ == nullptr) {
      Finish({grpc::StatusCode::UNIMPLEMENTED, "no policy is served here"});
      return;
    }
    registration_ = desk_->OnChange([weak = weak_from_this()] {
      if (const auto self = weak.lock()) {
        self->Tell();
      }
    });
    Tell();
  }

  void OnWriteDone(bool ok) override {
    bool again = false;
    {
      MutexLock hold(mu_);
      writing_ = false;
      again = waiting_ && ok && !ended_;
      waiting_ = false;
    }
    if (again) {
      Tell();
    } else if (!ok) {
      End();
    }
  }
  void OnCancel() override { End(); }
  void OnDone() override {
    registration_.reset();
    self_.reset();
  }

 private:
  // Writes the state as it is now, or, while an older one is being written, later.
  void Tell() {
    gateway::v1::WatchStateResponse response;
    *response.mutable_state() = StateMessage(*desk_, sessions_);
    MutexLock hold(mu_);
    if (ended_) {
      return;
    }
    if (writing_) {
      waiting_ = true;
      return;
    }
    writing_ = true;
    out_ = std::move(response);
    StartWrite(&out_);
  }

  void End() {
    MutexLock hold(mu_);
    if (!ended_) {
      ended_ = true;
      Finish({grpc::StatusCode::CANCELLED, "the caller went away"});
    }
  }

  PolicyDesk* const desk_;
  const SessionManager& sessions_;
  std::shared_ptr<void> registration_;
  std::shared_ptr<Watch> self_;  // until gRPC is done with the call
  Mutex mu_;
  gateway::v1::WatchStateResponse out_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerWriteReactor<gateway::v1::WatchStateResponse>* ServeWatchState(
    PolicyDesk* desk, const SessionManager& sessions) {
  const auto watch = std::make_shared<Watch>(desk, sessions);
  watch->Run();
  return watch.get();
}

}  // namespace creel
