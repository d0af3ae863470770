#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "supervisor/base/mutex.h"

namespace creel {

// A call that answers with a stream, one message after the other was taken, until it is ended from
// here or the caller goes away. Made with make_shared, and owns itself from Run on until gRPC is
// done with it. What derives from it is called without its lock.
template <typename Response>
class StreamWriter : public grpc::ServerWriteReactor<Response>,
                     public std::enable_shared_from_this<StreamWriter<Response>> {
 public:
  void Run() {
    self_ = this->shared_from_this();
    Begin();
  }

  void OnWriteDone(bool ok) final {
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (final_.has_value()) {
        this->Finish(*final_);
        return;
      }
    }
    if (ok) {
      OnTaken();
    } else {
      OnCancel();
    }
  }
  void OnCancel() final { End({grpc::StatusCode::CANCELLED, "the caller went away"}); }
  void OnDone() final {
    const auto self = std::move(self_);
    OnOver();
  }

 protected:
  virtual void Begin() = 0;
  // The message that was written is taken, and the next may be. Not called after the end.
  virtual void OnTaken() = 0;
  // The time of Later has come. May be called after the end.
  virtual void OnTime() {}
  // gRPC is done with the call; nothing is called any more.
  virtual void OnOver() {}

  // Whether Write would do nothing.
  [[nodiscard]] bool Busy() {
    MutexLock lock(mu_);
    return writing_ || final_.has_value();
  }

  // False if a message is still being written, or the call has ended; `response` is left then.
  bool Write(Response& response) {
    MutexLock lock(mu_);
    if (writing_ || final_.has_value()) {
      return false;
    }
    TakeLocked(response);
    this->StartWrite(&response_);
    return true;
  }
  // The same, and ends the call well with it.
  bool WriteLast(Response& response) {
    MutexLock lock(mu_);
    if (writing_ || final_.has_value()) {
      return false;
    }
    TakeLocked(response);
    final_ = grpc::Status::OK;
    this->StartWriteAndFinish(&response_, {}, *final_);
    return true;
  }

  // Ends the call, once what is being written has been. Only the first end counts.
  void End(const grpc::Status& status) {
    MutexLock lock(mu_);
    if (final_.has_value()) {
      return;
    }
    final_ = status;
    if (!writing_) {
      this->Finish(status);
    }
  }

  // Has OnTime called, unless the call has ended. One time at a time.
  void Later(std::chrono::milliseconds wait) {
    MutexLock lock(mu_);
    if (final_.has_value()) {
      return;
    }
    // Weak, as the alarm keeps its callback.
    alarm_.Set(std::chrono::system_clock::now() + wait, [weak = this->weak_from_this()](bool due) {
      const auto self = weak.lock();
      if (due && self != nullptr) {
        self->OnTime();
      }
    });
  }

 private:
  void TakeLocked(Response& response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    response_.Clear();
    response_.Swap(&response);
    writing_ = true;
  }

  std::shared_ptr<StreamWriter> self_;  // until gRPC is done with the call
  Mutex mu_;
  Response response_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<grpc::Status> final_ ABSL_GUARDED_BY(mu_);
  grpc::Alarm alarm_;
};

}  // namespace creel
