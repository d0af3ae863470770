#include "supervisor/sandbox/shim_process.h"

#include <fmt/format.h>
#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <utility>

namespace creel {

using shim::v1::Exit;
using shim::v1::ProcessInfo;
using shim::v1::ProcessInput;
using shim::v1::RunRequest;
using shim::v1::RunResponse;

namespace {

// How long a process whose stream broke waits for the link to come back.
constexpr std::chrono::milliseconds kResumeWithin{900};
// A stop that is not answered by then is left to the end of the sandbox.
constexpr std::chrono::seconds kStopWithin{60};
// Room that OVERFLOW_BLOCK keeps free: what the transport may still hold when reading stops.
constexpr uint64_t kBlockMargin = 2u << 20;
// A shim that sends this many events in a row without a byte of output is not ours.
constexpr int kMaxEmptyEvents = 1000;

}  // namespace

// One Run call to the shim. Deletes itself when gRPC is done with it. One hold is kept while reads
// or writes may be started from outside a reaction; whichever of the last read and the last write
// ends later gives it back.
class RunStream final : public grpc::ClientBidiReactor<RunRequest, RunResponse> {
 public:
  RunStream(std::shared_ptr<ShimProcess> process, ShimProcess::StubPtr stub)
      : process_(std::move(process)), stub_(std::move(stub)) {}

  void Begin(RunRequest first) {
    // One packet instead of two for headers and the first message.
    context_.set_initial_metadata_corked(true);
    request_ = std::move(first);
    stub_->async()->Run(&context_, this);
    AddHold();
    StartWrite(&request_);
    StartRead(&response_);
    StartCall();
  }

  // A write or read from outside a reaction is announced first, under the process's lock, so that
  // the stream cannot end in between. False: it is over, or one is under way.
  [[nodiscard]] bool ReserveWrite() {
    MutexLock lock(mu_);
    const bool free = !writing_ && !reads_over_;
    writing_ = writing_ || free;
    return free;
  }
  [[nodiscard]] bool ReserveRead() {
    MutexLock lock(mu_);
    const bool free = !reading_ && !reads_over_;
    reading_ = reading_ || free;
    return free;
  }
  void Write(RunRequest request) {
    request_ = std::move(request);
    StartWrite(&request_);
  }
  void ReadMore() { StartRead(&response_); }
  [[nodiscard]] const ShimProcess::StubPtr& stub() const { return stub_; }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (ok && !process_->OnEvent(response_)) {
      context_.TryCancel();
    }
    if (ok && process_->MayReadOn()) {
      // The next is on its way while this is put away.
      StartRead(&response_);
      process_->PutAway();
      return;
    }
    if (ok) {
      process_->PutAway();
    }
    {
      MutexLock lock(mu_);
      reading_ = false;
      reads_over_ = reads_over_ || !ok;
    }
    if (ok) {
      // The reader may have caught up between the two looks.
      process_->ReadOnIfPaused();
      return;
    }
    GiveHoldBackIfOver();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mu_);
      writing_ = false;
    }
    process_->OnWritten(ok);
    GiveHoldBackIfOver();
  }

  void OnDone(const grpc::Status& status) override {
    process_->OnStreamDone(status);
    delete this;
  }

 private:
  void GiveHoldBackIfOver() {
    bool over = false;
    {
      MutexLock lock(mu_);
      over = !reading_ && !writing_ && reads_over_ && !released_;
      released_ = released_ || over;
    }
    if (over) {
      RemoveHold();
    }
  }

  const std::shared_ptr<ShimProcess> process_;
  const ShimProcess::StubPtr stub_;  // keeps the channel
  grpc::ClientContext context_;
  RunRequest request_;
  RunResponse response_;
  Mutex mu_;
  bool reading_ ABSL_GUARDED_BY(mu_) = true;  // as Begin starts one of each
  bool writing_ ABSL_GUARDED_BY(mu_) = true;
  bool reads_over_ ABSL_GUARDED_BY(mu_) = false;
  bool released_ ABSL_GUARDED_BY(mu_) = false;
};

namespace {

// A stop by a call of its own. What it answers does not matter: the stream tells of the end.
void SendStop(ShimProcess::StubPtr stub, const std::string& process_id) {
  struct Call {
    ShimProcess::StubPtr stub;  // keeps the channel
    grpc::ClientContext context;
    shim::v1::SendInputRequest request;
    shim::v1::SendInputResponse response;
  };
  auto call = std::make_shared<Call>();
  call->stub = std::move(stub);
  call->request.set_process_id(process_id);
  call->request.mutable_input()->mutable_stop();
  call->context.set_deadline(std::chrono::system_clock::now() + kStopWithin);
  call->stub->async()->SendInput(&call->context, &call->request, &call->response,
                                 [call](const grpc::Status& /*status*/) {});
}

}  // namespace

ShimProcess::ShimProcess(ProcessInfo info, OutputLog::Options log, OnEnd on_end)
    : log_(std::move(log)), on_end_(std::move(on_end)), info_(std::move(info)) {
  blocks_ = info_.spec().overflow() == shim::v1::OVERFLOW_BLOCK;
}

std::shared_ptr<ShimProcess> ShimProcess::Refused(ProcessInfo info, const absl::Status& why) {
  auto process = std::make_shared<ShimProcess>(std::move(info), OutputLog::Options{},
                                               [](const ProcessInfo&, const OutputLog::Digest&) {});
  process->End({}, why);
  return process;
}

void ShimProcess::Start(StubPtr stub) {
  RunRequest request;
  {
    MutexLock lock(mu_);
    request.mutable_start()->set_process_id(info_.process_id());
    *request.mutable_start()->mutable_spec() = info_.spec();
  }
  Open(std::move(stub), std::move(request));
}

void ShimProcess::Attach(StubPtr stub, uint64_t offset) {
  RunRequest request;
  {
    MutexLock lock(mu_);
    request.mutable_attach()->set_process_id(info_.process_id());
  }
  request.mutable_attach()->set_offset(offset);
  Open(std::move(stub), std::move(request));
}

void ShimProcess::Resume(StubPtr stub) {
  {
    MutexLock lock(mu_);
    if (ended_) {
      return;
    }
    if (stream_ != nullptr) {
      resume_stub_ = std::move(stub);
      stub = nullptr;
    }
  }
  if (stub != nullptr) {
    Attach(std::move(stub), log_.end());
  } else {
    CancelStream();
  }
}

void ShimProcess::Lose(const std::string& reason) {
  Exit exit;
  exit.set_lost(reason);
  exit.set_output_bytes(log_.end());
  End(std::move(exit), absl::OkStatus());
  CancelStream();
}

bool ShimProcess::ended() const {
  MutexLock lock(mu_);
  return ended_;
}

void ShimProcess::WhenStarted(std::function<void(absl::StatusOr<ProcessInfo>)> done) {
  absl::StatusOr<ProcessInfo> now = absl::UnknownError("");
  {
    MutexLock lock(mu_);
    if (!started_ && !ended_) {
      start_waiters_.push_back(std::move(done));
      return;
    }
    if (failure_.ok()) {
      now = info_;
    } else {
      now = failure_;
    }
  }
  done(std::move(now));
}

RemoteProcess::Next ShimProcess::Read(uint64_t offset, std::function<void()> wake) {
  OutputLog::Next next = log_.Read(offset, std::move(wake));
  if (std::holds_alternative<OutputLog::Pending>(next)) {
    return Pending{};
  }
  if (auto* output = std::get_if<std::shared_ptr<const shim::v1::Output>>(&next)) {
    return std::move(*output);
  }
  if (auto* gap = std::get_if<shim::v1::OutputGap>(&next)) {
    return *gap;
  }
  MutexLock lock(mu_);
  if (!failure_.ok()) {
    return failure_;
  }
  return info_.exit();
}

void ShimProcess::ReaderAt(uint64_t offset) {
  {
    MutexLock lock(mu_);
    reader_offset_ = offset;
  }
  ReadOnIfPaused();
}

void ShimProcess::ReleaseReader() {
  {
    MutexLock lock(mu_);
    blocks_ = false;
  }
  ReadOnIfPaused();
}

void ShimProcess::Send(ProcessInput input, std::function<void(absl::Status)> done) {
  RunStream* stream = nullptr;
  RunRequest request;
  bool ended = false;
  {
    MutexLock lock(mu_);
    ended = ended_;
    if (!ended) {
      inputs_.push_back({std::move(input), std::move(done)});
      stream = NextWriteLocked(&request);
    }
  }
  if (stream != nullptr) {
    stream->Write(std::move(request));
  }
  if (ended) {
    done(absl::FailedPreconditionError("the command has ended"));
  }
}

void ShimProcess::Stop() {
  StubPtr beside;
  RunStream* stream = nullptr;
  RunRequest request;
  std::string process_id;
  {
    MutexLock lock(mu_);
    if (ended_ || stop_sent_) {
      return;
    }
    stop_sent_ = true;
    // Ahead of what waits, and where a write is under way, as to a command that does not read its
    // input, beside the stream.
    ProcessInput stop;
    stop.mutable_stop();
    inputs_.push_front({std::move(stop), [](const absl::Status&) {}});
    stream = NextWriteLocked(&request);
    if (stream == nullptr && stream_ != nullptr && started_) {
      beside = stream_->stub();
      process_id = info_.process_id();
    }
  }
  if (stream != nullptr) {
    stream->Write(std::move(request));
  } else if (beside != nullptr) {
    SendStop(std::move(beside), process_id);
  }
  // A command whose output waits for a reader must be able to come to its end.
  ReleaseReader();
}

ProcessInfo ShimProcess::Info() const {
  ProcessInfo info;
  {
    MutexLock lock(mu_);
    info = info_;
  }
  info.set_output_begin(log_.begin());
  info.set_output_end(log_.end());
  return info;
}

bool ShimProcess::OnEvent(RunResponse& response) {
  if (ended()) {
    return false;  // nothing comes after the exit
  }
  auto& event = *response.mutable_event();
  switch (event.event_case()) {
    case shim::v1::ProcessEvent::kStarted:
      OnStarted(event.started());
      return true;
    case shim::v1::ProcessEvent::kOutput:
      if (!event.output().data().empty()) {
        {
          MutexLock lock(mu_);
          empty_events_ = 0;
        }
        return log_.Append(std::move(*event.mutable_output())).ok();
      }
      break;
    case shim::v1::ProcessEvent::kGap:
      if (!log_.AppendGap(event.gap().to()).ok()) {
        return false;
      }
      break;
    case shim::v1::ProcessEvent::kExit: {
      Exit exit = std::move(*event.mutable_exit());
      if (exit.how_case() == Exit::HOW_NOT_SET) {
        return false;
      }
      exit.set_output_bytes(log_.end());
      End(std::move(exit), absl::OkStatus());
      return true;
    }
    default:
      return false;
  }
  MutexLock lock(mu_);
  return ++empty_events_ < kMaxEmptyEvents;
}

bool ShimProcess::MayReadOn() {
  MutexLock lock(mu_);
  paused_ = blocks_ && log_.WouldLose(reader_offset_, kBlockMargin);
  return !paused_;
}

void ShimProcess::ReadOnIfPaused() {
  RunStream* stream = nullptr;
  {
    MutexLock lock(mu_);
    if (stream_ != nullptr && paused_ &&
        (!blocks_ || !log_.WouldLose(reader_offset_, kBlockMargin)) && stream_->ReserveRead()) {
      paused_ = false;
      stream = stream_;
    }
  }
  if (stream != nullptr) {
    stream->ReadMore();
  }
}

void ShimProcess::OnWritten(bool ok) {
  std::function<void(absl::Status)> done;
  RunStream* stream = nullptr;
  RunRequest request;
  {
    MutexLock lock(mu_);
    done = std::exchange(written_done_, nullptr);
    if (ok) {
      stream = NextWriteLocked(&request);
    }
  }
  if (done) {
    done(ok ? absl::OkStatus()
            : absl::UnavailableError("the command has ended or its sandbox went away"));
  }
  if (stream != nullptr) {
    stream->Write(std::move(request));
  }
}

void ShimProcess::OnStreamDone(const grpc::Status& status) {
  StubPtr resume;
  bool started = false;
  {
    MutexLock lock(mu_);
    stream_ = nullptr;
    resume = std::exchange(resume_stub_, nullptr);
    started = started_;
    if (ended_) {
      return;
    }
  }
  if (resume != nullptr) {
    Attach(std::move(resume), log_.end());
    return;
  }
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::CANCELLED:
      WaitForResume();
      return;
    case grpc::StatusCode::OK:
      Lose("the shim ended the stream without an exit");
      return;
    default:
      break;
  }
  if (started) {
    Lose(fmt::format("the shim gave up the stream: {}", status.error_message().substr(0, 256)));
  } else {
    End({}, absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                         status.error_message().substr(0, 1024)));
  }
}

void ShimProcess::Open(StubPtr stub, RunRequest first) {
  auto* stream = new RunStream(shared_from_this(), std::move(stub));
  {
    MutexLock lock(mu_);
    stream_ = stream;
    paused_ = false;
    empty_events_ = 0;
  }
  stream->Begin(std::move(first));
}

RunStream* ShimProcess::NextWriteLocked(RunRequest* request) {
  if (stream_ == nullptr || inputs_.empty() || ended_ || !stream_->ReserveWrite()) {
    return nullptr;
  }
  *request->mutable_input() = std::move(inputs_.front().input);
  written_done_ = std::move(inputs_.front().done);
  inputs_.pop_front();
  return stream_;
}

// A stream that is not being read would never notice that it was cancelled.
void ShimProcess::CancelStream() {
  RunStream* stream = nullptr;
  {
    MutexLock lock(mu_);
    if (stream_ == nullptr) {
      return;
    }
    stream_->Cancel();
    if (paused_ && stream_->ReserveRead()) {
      paused_ = false;
      stream = stream_;
    }
  }
  if (stream != nullptr) {
    stream->ReadMore();
  }
}

void ShimProcess::OnStarted(const ProcessInfo& told) {
  std::vector<std::function<void(absl::StatusOr<ProcessInfo>)>> waiters;
  ProcessInfo info;
  {
    MutexLock lock(mu_);
    // Only what the shim alone can know is taken from it.
    info_.set_pid(told.pid());
    *info_.mutable_started_at() = told.started_at();
    started_ = true;
    waiters.swap(start_waiters_);
    info = info_;
  }
  for (auto& waiter : waiters) {
    waiter(info);
  }
}

void ShimProcess::End(Exit exit, const absl::Status& failure) {
  std::vector<std::function<void(absl::StatusOr<ProcessInfo>)>> waiters;
  std::deque<QueuedInput> inputs;
  absl::StatusOr<ProcessInfo> result = absl::UnknownError("");
  ProcessInfo info;
  {
    MutexLock lock(mu_);
    if (ended_) {
      return;
    }
    ended_ = true;
    failure_ = failure;
    *info_.mutable_exit() = std::move(exit);
    info_.set_pid(0);
    info = info_;
    if (failure.ok()) {
      result = info_;
    } else {
      result = failure;
    }
    waiters.swap(start_waiters_);
    inputs.swap(inputs_);
  }
  // Readers are woken only now that the end can be seen.
  log_.Close();
  for (auto& waiter : waiters) {
    waiter(result);
  }
  for (auto& input : inputs) {
    input.done(absl::FailedPreconditionError("the command has ended"));
  }
  on_end_(info, log_.TakeDigest());
}

// Ends itself, as lost, if nothing brought it back in time.
void ShimProcess::WaitForResume() {
  auto* alarm = new grpc::Alarm;  // deletes itself when it rings
  const std::weak_ptr<ShimProcess> weak = weak_from_this();
  alarm->Set(std::chrono::system_clock::now() + kResumeWithin, [alarm, weak](bool) {
    if (const auto self = weak.lock()) {
      bool attached = false;
      {
        MutexLock lock(self->mu_);
        attached = self->stream_ != nullptr;
      }
      if (!attached) {
        self->Lose("the connection to the shim broke and did not come back");
      }
    }
    delete alarm;
  });
}

}  // namespace creel
