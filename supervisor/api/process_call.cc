#include "supervisor/api/process_call.h"

#include <fmt/format.h>
#include <grpcpp/alarm.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "supervisor/api/command_check.h"
#include "supervisor/api/status_map.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/mutex.h"
#include "supervisor/sandbox/process_table.h"

namespace creel {
namespace {

using shim::v1::Exit;
using shim::v1::Output;
using shim::v1::OutputGap;
using shim::v1::ProcessEvent;
using shim::v1::ProcessInfo;

// How long a command of a lost sandbox has to tell its end, before its call ends without.
constexpr std::chrono::milliseconds kLastWords{500};

// The shim's words in an exit are text of unknown origin.
void MakePrintable(Exit& exit) {
  constexpr size_t kMaxText = 1024;
  if (exit.has_start_failure()) {
    auto& message = *exit.mutable_start_failure()->mutable_message();
    message = Printable(message, kMaxText);
  } else if (exit.how_case() == Exit::kLost) {
    exit.set_lost(Printable(exit.lost(), kMaxText));
  }
}

// Serves Exec and Attach: decodes the first message, lets the gate decide, then carries output one
// way and input the other, one piece at a time each. Reactions and the callbacks of process, gate
// and alarm meet under `mu_`; what may call back is called without it.
template <class Request, class Response>
class ProcessCall final : public grpc::ServerBidiReactor<Request, Response>,
                          public std::enable_shared_from_this<ProcessCall<Request, Response>> {
 public:
  static constexpr bool kExec = std::is_same_v<Request, gateway::v1::ExecRequest>;

  ProcessCall(CallGate& gate, std::string trace) : gate_(gate), trace_(std::move(trace)) {}

  void Run() {
    self_ = this->shared_from_this();
    this->StartRead(&in_);
  }

  void OnReadDone(bool ok) override {
    if (!opened_) {
      opened_ = true;
      Open(ok);
      return;
    }
    if (!ok) {
      return;  // no more input, or the caller is gone, which OnCancel tells
    }
    absl::Status status = absl::InvalidArgumentError("every message but the first holds `input`");
    if (in_.has_input()) {
      status = CheckInput(in_.input());
    }
    if (!status.ok()) {
      End(ToGrpc(status));
      return;
    }
    process_->Send(
        std::move(*in_.mutable_input()),
        [self = this->shared_from_this()](const absl::Status& sent) { self->OnSent(sent); });
  }

  void OnWriteDone(bool ok) override {
    bool advanced = false;
    uint64_t offset = 0;
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (written_ != nullptr) {
        (void)out_.mutable_event()->unsafe_arena_release_output();
        written_ = nullptr;
      }
      if (final_.has_value()) {
        this->Finish(*final_);
        return;
      }
      advanced = offset_ != next_offset_;
      offset_ = next_offset_;
      offset = offset_;
    }
    if (!ok) {
      End({grpc::StatusCode::CANCELLED, "the caller went away"});
      return;
    }
    if (advanced && blocks_) {
      process_->ReaderAt(offset);
    }
    Pump();
    ReadInput();
  }

  void OnCancel() override { End({grpc::StatusCode::CANCELLED, "the caller went away"}); }
  void OnDone() override { self_.reset(); }

 private:
  using Next = RemoteProcess::Next;

  void Open(bool ok) {
    absl::StatusOr<ToolCall> call = absl::InvalidArgumentError(
        kExec ? "the first message must hold `start`" : "the first message must hold `attach`");
    if (ok) {
      call = Decode();
    }
    if (!call.ok()) {
      End(ToGrpc(call.status()));
      return;
    }
    gate_.Begin(*std::move(call), [self = this->shared_from_this()](
                                      absl::StatusOr<std::shared_ptr<CallTicket>> ticket) {
      self->Let(std::move(ticket));
    });
  }

  absl::StatusOr<ToolCall> Decode() {
    ToolCall call;
    const gateway::v1::CallContext* context = nullptr;
    if constexpr (kExec) {
      if (!in_.has_start()) {
        return absl::InvalidArgumentError("the first message must hold `start`");
      }
      RETURN_IF_ERROR(CheckCommand(in_.start().spec()));
      RETURN_IF_ERROR(CheckProcessId(in_.start().process_id(), true));
      context = &in_.start().context();
      call.tool = "exec";
      call.summary = Summary(in_.start().spec());
      call.command = &in_.start().spec();
      detach_ = in_.start().detach();
      blocks_ = in_.start().spec().overflow() == shim::v1::OVERFLOW_BLOCK;
    } else {
      if (!in_.has_attach()) {
        return absl::InvalidArgumentError("the first message must hold `attach`");
      }
      RETURN_IF_ERROR(CheckProcessId(in_.attach().process_id(), false));
      context = &in_.attach().context();
      call.tool = "attach";
      call.summary = in_.attach().process_id();
      detach_ = true;
      next_offset_ = offset_ = in_.attach().offset();
    }
    call.session = context->session();
    call.sender = context->sender();
    call.tool_call_id = context->tool_call_id();
    call.trace = trace_;
    return call;
  }

  void Let(absl::StatusOr<std::shared_ptr<CallTicket>> ticket) {
    if (!ticket.ok()) {
      End(ToGrpc(ticket.status()));
      return;
    }
    {
      MutexLock lock(mu_);
      if (final_.has_value()) {
        return;
      }
      ticket_ = *ticket;
    }
    (*ticket)->OnLost([weak = this->weak_from_this()](const absl::Status& why) {
      if (const auto self = weak.lock()) {
        self->Lost(ToGrpc(why));
      }
    });
    {
      MutexLock lock(mu_);
      if (final_.has_value()) {
        return;
      }
    }
    std::shared_ptr<RemoteProcess> process;
    if constexpr (kExec) {
      process =
          (*ticket)->sandbox().processes().Start((*ticket)->shared_shim(), in_.start().process_id(),
                                                 std::move(*in_.mutable_start()->mutable_spec()));
    } else {
      process = (*ticket)->sandbox().processes().Find(in_.attach().process_id());
      if (process == nullptr) {
        End({grpc::StatusCode::NOT_FOUND,
             fmt::format("no process '{}' runs or is remembered; ListProcesses tells them",
                         in_.attach().process_id())});
        return;
      }
    }
    Converse(std::move(process));
  }

  void Converse(std::shared_ptr<RemoteProcess> process) {
    bool over = false;
    {
      MutexLock lock(mu_);
      process_ = process;
      over = final_.has_value();
    }
    if (over) {
      LeaveProcess(*process);
      return;
    }
    process->WhenStarted([self = this->shared_from_this()](absl::StatusOr<ProcessInfo> info) {
      if (!info.ok()) {
        self->End(ToGrpc(info.status()));
        return;
      }
      {
        MutexLock lock(self->mu_);
        self->started_ = *std::move(info);
        self->running_ = true;
      }
      self->Pump();
    });
  }

  // Input is read once the caller has `started`, and not while its command is being started: gRPC
  // tells a peer of every read that begins, and that would wake the caller at the worst moment.
  void ReadInput() {
    MutexLock lock(mu_);
    if (!reads_input_ && !final_.has_value()) {
      reads_input_ = true;
      this->StartRead(&in_);
    }
  }

  void OnSent(const absl::Status& status) {
    // Input to a command that has ended, or is lost, goes nowhere; its exit is on its way.
    MutexLock lock(mu_);
    if (status.ok() && !final_.has_value()) {
      this->StartRead(&in_);
    }
  }

  // Writes what comes next, if there is something and nothing is being written.
  void Pump() {
    bool more = true;
    while (more) {
      uint64_t offset = 0;
      {
        MutexLock lock(mu_);
        if (!running_ || writing_ || final_.has_value()) {
          return;
        }
        if (pumping_) {
          again_ = true;
          return;
        }
        if (started_.has_value()) {
          // Without a buffer hint, though output may follow at once: gRPC holds the headers back
          // with a hinted first message, does not call it written before they are out, and so waits
          // for ever unless something else makes it write.
          *out_.mutable_event()->mutable_started() = *std::move(started_);
          started_.reset();
          writing_ = true;
          this->StartWrite(&out_);
          return;
        }
        pumping_ = true;
        again_ = false;
        offset = offset_;
      }
      more = Write(process_->Read(offset, [weak = this->weak_from_this()] {
        if (const auto self = weak.lock()) {
          self->Pump();
        }
      }));
    }
  }

  // Returns whether to look for more at once.
  bool Write(Next next) {
    std::optional<grpc::Status> refused;
    std::optional<std::string> outcome;
    std::shared_ptr<CallTicket> ticket;
    {
      MutexLock lock(mu_);
      pumping_ = false;
      if (final_.has_value()) {
        return false;
      }
      if (std::holds_alternative<RemoteProcess::Pending>(next)) {
        return again_;
      }
      if (const auto* failure = std::get_if<absl::Status>(&next)) {
        refused = ToGrpc(*failure);
      } else if (auto* exit = std::get_if<Exit>(&next)) {
        MakePrintable(*exit);
        outcome = ExitText(*exit);
        ticket = ticket_;
        WriteExitLocked(*std::move(exit));
      } else {
        WritePieceLocked(next);
      }
    }
    if (refused.has_value()) {
      End(*refused);
    }
    if (outcome.has_value() && ticket != nullptr) {
      ticket->Finish(*outcome);
    }
    return false;
  }

  void WritePieceLocked(const Next& next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (const auto* output = std::get_if<std::shared_ptr<const Output>>(&next)) {
      // Lent to the message while it is written, as readers share one copy.
      written_ = *output;
      out_.mutable_event()->unsafe_arena_set_allocated_output(const_cast<Output*>(written_.get()));
      next_offset_ = written_->offset() + written_->data().size();
    } else {
      const auto& gap = std::get<OutputGap>(next);
      *out_.mutable_event()->mutable_gap() = gap;
      next_offset_ = gap.to();
    }
    writing_ = true;
    this->StartWrite(&out_);
  }

  void WriteExitLocked(Exit exit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    grpc::Status status = lost_.value_or(grpc::Status::OK);
    if (status.ok() && exit.how_case() == Exit::kLost) {
      status = grpc::Status(grpc::StatusCode::UNAVAILABLE, exit.lost());
    }
    *out_.mutable_event()->mutable_exit() = std::move(exit);
    final_ = status;
    this->StartWriteAndFinish(&out_, {}, status);
  }

  // The sandbox went away, or was frozen or closed. If the command's end is known, that is told
  // too.
  void Lost(const grpc::Status& why) {
    bool at_once = false;
    {
      MutexLock lock(mu_);
      if (final_.has_value()) {
        return;
      }
      lost_ = why;
      at_once = process_ == nullptr;
      if (!at_once) {
        last_words_.Set(std::chrono::system_clock::now() + kLastWords,
                        [weak = this->weak_from_this(), why](bool) {
                          if (const auto self = weak.lock()) {
                            self->End(why);
                          }
                        });
      }
    }
    if (at_once) {
      End(why);
    }
  }

  // The first one wins.
  void End(const grpc::Status& status) {
    std::shared_ptr<RemoteProcess> process;
    std::shared_ptr<CallTicket> ticket;
    {
      MutexLock lock(mu_);
      if (final_.has_value()) {
        return;
      }
      final_ = status;
      process = process_;
      ticket = ticket_;
      if (!writing_) {
        this->Finish(status);
      }
    }
    if (process != nullptr) {
      LeaveProcess(*process);
    }
    if (ticket != nullptr && status.error_code() != grpc::StatusCode::CANCELLED) {
      ticket->Finish(Outcome(status));
    }
  }

  // A command does not outlive its caller, unless that was asked for; one whose sandbox was frozen
  // is left as it stands.
  void LeaveProcess(RemoteProcess& process) {
    bool lost = false;
    {
      MutexLock lock(mu_);
      lost = lost_.has_value();
    }
    if (blocks_) {
      process.ReleaseReader();
    }
    if (!detach_ && !lost) {
      process.Stop();
    }
  }

  CallGate& gate_;
  const std::string trace_;
  Request in_;
  // Set before the process is known, and read only.
  bool opened_ = false;
  bool detach_ = false;
  bool blocks_ = false;
  std::shared_ptr<ProcessCall> self_;  // until gRPC is done with the call

  Mutex mu_;
  Response out_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const Output> written_ ABSL_GUARDED_BY(mu_);  // what `out_` has borrowed
  std::shared_ptr<CallTicket> ticket_ ABSL_GUARDED_BY(mu_);
  // Set once; used without the lock by what happens after.
  std::shared_ptr<RemoteProcess> process_;
  std::optional<ProcessInfo> started_ ABSL_GUARDED_BY(mu_);  // to be written first
  uint64_t offset_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t next_offset_ ABSL_GUARDED_BY(mu_) = 0;  // once the write under way is done
  bool running_ ABSL_GUARDED_BY(mu_) = false;
  bool reads_input_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool pumping_ ABSL_GUARDED_BY(mu_) = false;
  bool again_ ABSL_GUARDED_BY(mu_) = false;  // woken while pumping
  std::optional<grpc::Status> lost_ ABSL_GUARDED_BY(mu_);
  // What the call ends with, once nothing is being written.
  std::optional<grpc::Status> final_ ABSL_GUARDED_BY(mu_);
  grpc::Alarm last_words_;
};

template <class Request, class Response>
grpc::ServerBidiReactor<Request, Response>* Serve(CallGate& gate, std::string trace) {
  auto call = std::make_shared<ProcessCall<Request, Response>>(gate, std::move(trace));
  call->Run();
  return call.get();
}

}  // namespace

grpc::ServerBidiReactor<gateway::v1::ExecRequest, gateway::v1::ExecResponse>* ServeExec(
    CallGate& gate, std::string trace) {
  return Serve<gateway::v1::ExecRequest, gateway::v1::ExecResponse>(gate, std::move(trace));
}

grpc::ServerBidiReactor<gateway::v1::AttachProcessRequest, gateway::v1::AttachProcessResponse>*
ServeAttach(CallGate& gate, std::string trace) {
  return Serve<gateway::v1::AttachProcessRequest, gateway::v1::AttachProcessResponse>(
      gate, std::move(trace));
}

}  // namespace creel
