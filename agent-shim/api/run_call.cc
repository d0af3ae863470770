#include "agent-shim/api/run_call.h"

#include <fmt/format.h>

#include <utility>

namespace creel::shim {

grpc::Status ToGrpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

RunCall* RunCall::Begin(ProcessTable& table) {
  std::shared_ptr<RunCall> call(new RunCall(table));
  call->self_ = call;
  call->StartRead(&call->request_);
  return call.get();
}

void RunCall::OnReadDone(bool ok) {
  if (!ok) {
    MutexLock lock(mu_);
    // Later it is the end of the input, and the output goes on.
    if (!begun_) {
      FinishLocked({grpc::StatusCode::INVALID_ARGUMENT, "the call has no first message"});
    }
    return;
  }
  if (process_ == nullptr) {
    TakeFirst();
  } else {
    TakeInput();
  }
}

void RunCall::TakeFirst() {
  absl::StatusOr<std::shared_ptr<Process>> process =
      absl::InvalidArgumentError("the first message is neither 'start' nor 'attach'");
  uint64_t offset = 0;
  if (request_.has_start()) {
    process = table_.Run(request_.start());
  } else if (request_.has_attach()) {
    const std::string& id = request_.attach().process_id();
    offset = request_.attach().offset();
    process = table_.Find(id);
    if (*process == nullptr) {
      process = absl::NotFoundError("no process of that id is remembered");
    }
  }
  if (!process.ok()) {
    MutexLock lock(mu_);
    begun_ = true;
    FinishLocked(ToGrpc(process.status()));
    return;
  }
  process_ = *std::move(process);
  process_->Attach(shared_from_this(), offset);
  {
    MutexLock lock(mu_);
    begun_ = true;
    offset_ = offset;
  }
  Pump();
}

void RunCall::TakeInput() {
  if (request_.has_input()) {
    // What the process no longer takes is lost, as in a pipe to it; its exit says why.
    process_->Send(request_.input(), /*bounded=*/false, [](const absl::Status&) {});
  }
  std::weak_ptr<RunCall> weak = weak_from_this();
  const bool room = process_->InputRoom([weak] {
    if (std::shared_ptr<RunCall> call = weak.lock(); call != nullptr) {
      call->ReadMore();
    }
  });
  if (room) {
    ReadMore();
  }
}

void RunCall::ReadMore() {
  MutexLock lock(mu_);
  if (!finished_) {
    StartRead(&request_);
  }
}

void RunCall::Wake() { Pump(); }

void RunCall::Pump() {
  const std::shared_ptr<RunCall> alive = shared_from_this();
  MutexLock lock(mu_);
  if (!begun_ || writing_ || finished_ || process_ == nullptr) {
    return;
  }
  if (cancelled_) {
    FinishLocked(grpc::Status::CANCELLED);
    return;
  }
  Process::Next next = process_->Read(this, offset_, has_info_);
  if (std::holds_alternative<Process::Pending>(next)) {
    return;
  }
  if (const auto* status = std::get_if<absl::Status>(&next)) {
    FinishLocked(ToGrpc(*status));
    return;
  }
  if (auto* piece = std::get_if<OutputRing::Piece>(&next)) {
    offset_ += (*piece)->event().output().data().size();
    in_flight_ = std::move(*piece);
  } else {
    auto response = std::make_shared<v1::RunResponse>();
    v1::ProcessEvent& event = *response->mutable_event();
    if (auto* info = std::get_if<v1::ProcessInfo>(&next)) {
      *event.mutable_started() = std::move(*info);
      has_info_ = true;
    } else if (const auto* gap = std::get_if<v1::OutputGap>(&next)) {
      offset_ = gap->to();
      *event.mutable_gap() = *gap;
    } else if (auto* exit = std::get_if<v1::Exit>(&next)) {
      *event.mutable_exit() = std::move(*exit);
      in_flight_ = std::move(response);
      finished_ = true;
      StartWriteAndFinish(in_flight_.get(), grpc::WriteOptions(), grpc::Status::OK);
      return;
    }
    in_flight_ = std::move(response);
  }
  writing_ = true;
  StartWrite(in_flight_.get());
}

void RunCall::OnWriteDone(bool ok) {
  {
    MutexLock lock(mu_);
    if (finished_) {
      return;
    }
    writing_ = false;
    in_flight_.reset();
    cancelled_ = cancelled_ || !ok;
  }
  Pump();
  if (!std::exchange(reads_input_, true)) {
    ReadMore();
  }
}

void RunCall::OnCancel() {
  MutexLock lock(mu_);
  cancelled_ = true;
  // A write that is under way ends now; its reaction finishes the call.
  if (!writing_) {
    FinishLocked(grpc::Status::CANCELLED);
  }
}

void RunCall::FinishLocked(const grpc::Status& status) {
  if (!finished_) {
    finished_ = true;
    Finish(status);
  }
}

void RunCall::OnDone() {
  if (process_ != nullptr) {
    process_->Detach(this);
  }
  self_.reset();
}

}  // namespace creel::shim
