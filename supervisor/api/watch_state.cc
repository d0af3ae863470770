#include "supervisor/api/watch_state.h"

#include <memory>
#include <utility>

#include "supervisor/api/policy_convert.h"
#include "supervisor/api/stream_writer.h"
#include "supervisor/base/mutex.h"

namespace creel {
namespace {

class Watch final : public StreamWriter<gateway::v1::WatchStateResponse> {
 public:
  Watch(PolicyDesk* desk, const SessionManager& sessions) : desk_(desk), sessions_(sessions) {}

  void Begin() override {
    if (desk_ == nullptr) {
      End({grpc::StatusCode::UNIMPLEMENTED, "no policy is served here"});
      return;
    }
    registration_ = desk_->OnChange([weak = weak_from_this(), this] {
      if (const auto self = weak.lock()) {
        Tell();
      }
    });
    Tell();
  }
  void OnTaken() override {
    bool again = false;
    {
      MutexLock hold(mu_);
      again = std::exchange(waiting_, false);
    }
    if (again) {
      Tell();
    }
  }
  void OnOver() override { registration_.reset(); }

 private:
  // Writes the state as it is now, or, while an older one is being written, later.
  void Tell() {
    gateway::v1::WatchStateResponse response;
    *response.mutable_state() = StateMessage(*desk_, sessions_);
    // Held over both, as the older one may be taken in between.
    MutexLock hold(mu_);
    waiting_ = !Write(response);
  }

  PolicyDesk* const desk_;
  const SessionManager& sessions_;
  std::shared_ptr<void> registration_;
  Mutex mu_;
  bool waiting_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerWriteReactor<gateway::v1::WatchStateResponse>* ServeWatchState(
    PolicyDesk* desk, const SessionManager& sessions) {
  const auto watch = std::make_shared<Watch>(desk, sessions);
  watch->Run();
  return watch.get();
}

}  // namespace creel
