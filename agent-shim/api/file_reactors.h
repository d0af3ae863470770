#pragma once

#include <grpcpp/grpcpp.h>

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "agent-shim/files/reader.h"
#include "agent-shim/files/worker_pool.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"

namespace creel::shim {

inline grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

// One reactor per kind of call. All delete themselves when gRPC is done with them, do their work
// through a WorkerPool that outlives them, and never call gRPC with a lock held, because gRPC may
// run the next callback inside of such a call.

// A call with one answer.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  using Work = std::function<absl::Status(const Cancel&)>;

  UnaryCall(WorkerPool& pool, Work work) : work_(std::move(work)) {
    pool.Submit([this](const absl::Status& identity) {
      absl::Status status = identity.ok() ? cancel_.Check() : identity;
      if (status.ok()) {
        status = work_(cancel_);
      }
      Finish(ToGrpc(status));
    });
  }

 private:
  void OnCancel() override { cancel_.Set(); }
  void OnDone() override { delete this; }

  Cancel cancel_;
  const Work work_;
};

// A call that streams what a Producer gives. One message is made while the one before is sent, and
// no thread is held while the reader is slow. `Wrap` takes the producer's message out of the
// response.
template <typename Response, typename Message>
class StreamCall final : public grpc::ServerWriteReactor<Response> {
 public:
  using Open = std::function<absl::StatusOr<std::unique_ptr<Producer<Message>>>(const Cancel&)>;
  using Wrap = Message* (*)(Response&);

  StreamCall(WorkerPool& pool, Open open, Wrap wrap)
      : pool_(pool), open_(std::move(open)), wrap_(wrap) {
    Advance();
  }

 private:
  static constexpr size_t kSlots = 2;

  void OnCancel() override { cancel_.Set(); }
  void OnDone() override { delete this; }
  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mu_);
      sending_ = false;
      ++sent_;
      if (!ok) {
        cancel_.Set();
        made_ = sent_;
        EndLocked(absl::CancelledError("the reader went away"));
      }
    }
    Advance();
  }

  // Starts whatever may be started now. Nothing of the object may be touched behind a call of
  // gRPC or the pool, except that the one before a Submit keeps the object alive.
  void Advance() {
    bool produce = false;
    bool send = false;
    bool finish = false;
    size_t slot = 0;
    absl::Status status;
    {
      MutexLock lock(mu_);
      if (!producing_ && !ended_ && made_ - sent_ < kSlots) {
        producing_ = true;
        produce = true;
      }
      if (!sending_ && made_ > sent_) {
        sending_ = true;
        send = true;
        slot = sent_ % kSlots;
      } else if (ended_ && !sending_ && !producing_ && !finished_) {
        finished_ = true;
        finish = true;
        status = outcome_;
      }
    }
    // While `producing_` stands the call is not finished, so the object lives until Produce().
    if (send && produce) {
      this->StartWrite(&slots_[slot]);
      Submit();
    } else if (send) {
      this->StartWrite(&slots_[slot]);
    } else if (produce) {
      Submit();
    } else if (finish) {
      this->Finish(ToGrpc(status));
    }
  }

  void Submit() {
    pool_.Submit([this](const absl::Status& identity) { Produce(identity); });
  }

  void Produce(const absl::Status& identity) {
    absl::StatusOr<Produced> produced = Make(identity);
    {
      MutexLock lock(mu_);
      producing_ = false;
      if (!produced.ok()) {
        EndLocked(produced.status());
      } else if (!ended_) {
        made_ += *produced == Produced::kMessage || *produced == Produced::kLastMessage ? 1 : 0;
        if (*produced == Produced::kLastMessage || *produced == Produced::kEnd) {
          EndLocked(absl::OkStatus());
        }
      }
    }
    Advance();
  }

  absl::StatusOr<Produced> Make(const absl::Status& identity) {
    RETURN_IF_ERROR(identity);
    RETURN_IF_ERROR(cancel_.Check());
    if (producer_ == nullptr) {
      ASSIGN_OR_RETURN(producer_, open_(cancel_));
    }
    size_t slot = 0;
    {
      MutexLock lock(mu_);
      slot = made_ % kSlots;
    }
    return producer_->Next(*wrap_(slots_[slot]), cancel_);
  }

  void EndLocked(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!ended_) {
      ended_ = true;
      outcome_ = std::move(status);
    }
  }

  WorkerPool& pool_;
  const Open open_;
  const Wrap wrap_;
  Cancel cancel_;
  // Belongs to whoever produces; there is one at a time.
  std::unique_ptr<Producer<Message>> producer_;
  // Slot i % kSlots holds message i, for `sent_` <= i < `made_`; the next one is being made.
  std::array<Response, kSlots> slots_;

  Mutex mu_;
  size_t made_ ABSL_GUARDED_BY(mu_) = 0;
  size_t sent_ ABSL_GUARDED_BY(mu_) = 0;
  bool producing_ ABSL_GUARDED_BY(mu_) = false;
  bool sending_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status outcome_ ABSL_GUARDED_BY(mu_);
};

// Takes what a client streams, message by message, and gives the answer at its end. All calls and
// the destructor come from a worker thread, one at a time.
template <typename Request>
class Consumer {
 public:
  virtual ~Consumer() = default;
  virtual absl::Status Take(Request& request, const Cancel& cancel) = 0;
  // The client has closed its side in good order.
  virtual absl::Status Finish(const Cancel& cancel) = 0;
};

// A call whose client streams. One message is read while the one before is worked on. If the call
// is cancelled or breaks off, the consumer is destroyed without Finish().
template <typename Request>
class ReceiveCall final : public grpc::ServerReadReactor<Request> {
 public:
  ReceiveCall(grpc::CallbackServerContext* context, WorkerPool& pool,
              std::unique_ptr<Consumer<Request>> consumer)
      : context_(context), pool_(pool), consumer_(std::move(consumer)) {
    Advance();
  }

 private:
  static constexpr size_t kSlots = 2;

  void OnCancel() override { cancel_.Set(); }
  void OnDone() override { delete this; }
  void OnReadDone(bool ok) override {
    // A stream that broke off ends like one that was closed, only the context knows; gRPC marks it
    // before it calls here.
    const bool broken = !ok && context_->IsCancelled();
    if (broken) {
      cancel_.Set();
    }
    {
      MutexLock lock(mu_);
      reading_ = false;
      if (ok) {
        ++read_;
      } else {
        end_of_stream_ = true;
      }
    }
    Advance();
  }

  void Advance() {
    bool read = false;
    bool work = false;
    size_t slot = 0;
    {
      MutexLock lock(mu_);
      if (!reading_ && !end_of_stream_ && !ended_ && read_ - taken_ < kSlots) {
        reading_ = true;
        read = true;
        slot = read_ % kSlots;
      }
      if (!working_ && !ended_ && (read_ > taken_ || end_of_stream_)) {
        working_ = true;
        work = true;
      }
    }
    // Once the work is submitted it may finish the call, so reading comes first.
    if (read) {
      this->StartRead(&slots_[slot]);
    }
    if (work) {
      pool_.Submit([this](const absl::Status& identity) { Work(identity); });
    }
  }

  void Work(const absl::Status& identity) {
    bool last = false;
    size_t slot = 0;
    {
      MutexLock lock(mu_);
      last = read_ == taken_;
      slot = taken_ % kSlots;
    }
    absl::Status status = identity.ok() ? cancel_.Check() : identity;
    if (status.ok()) {
      status = last ? consumer_->Finish(cancel_) : consumer_->Take(slots_[slot], cancel_);
    }
    const bool end = last || !status.ok();
    if (end) {
      // What it had begun is undone here, as the tool.
      consumer_.reset();
    }
    {
      MutexLock lock(mu_);
      working_ = false;
      ended_ = end;
      if (!last) {
        ++taken_;
      }
    }
    if (end) {
      this->Finish(ToGrpc(status));
      return;
    }
    Advance();
  }

  grpc::CallbackServerContext* const context_;
  WorkerPool& pool_;
  Cancel cancel_;
  std::unique_ptr<Consumer<Request>> consumer_;
  // Slot i % kSlots holds message i, for `taken_` <= i < `read_`.
  std::array<Request, kSlots> slots_;

  Mutex mu_;
  size_t read_ ABSL_GUARDED_BY(mu_) = 0;
  size_t taken_ ABSL_GUARDED_BY(mu_) = 0;
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  bool working_ ABSL_GUARDED_BY(mu_) = false;
  bool end_of_stream_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace creel::shim
