#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent-shim/exec/process.h"

namespace creel::shim {
namespace {

constexpr size_t kSmallRead = 4096;
constexpr size_t kMaxPiece = 256u << 10;
// Read for one process before the others get their turn.
constexpr uint64_t kTurnBytes = 1u << 20;
// A pipe that was found full once gets this size. More is not asked for: pipes are charged to PID
// 1's uid, which all sandboxes share.
constexpr int kLargePipe = 256 << 10;
constexpr int kDefaultPipe = 64 << 10;
// A reader that takes nothing for so long no longer holds up a command that may lose output.
constexpr std::chrono::seconds kStall{1};
constexpr size_t kMaxQueuedInput = 1u << 20;
constexpr size_t kMaxEarlySignals = 64;
constexpr char kEndOfFileCharacter = 4;  // VEOF, Ctrl-D

// Reads what is there, at most a piece. Sets `again` if nothing is; empty without it: the end.
std::string ReadPiece(int fd, int available, bool& again) {
  if (available <= static_cast<int>(kSmallRead)) {
    char small[kSmallRead];
    const ssize_t bytes = read(fd, small, sizeof small);
    again = bytes < 0 && (errno == EAGAIN || errno == EINTR);
    return bytes > 0 ? std::string(small, bytes) : std::string();
  }
  std::string data(std::min<size_t>(available, kMaxPiece), '\0');
  const ssize_t bytes = read(fd, data.data(), data.size());
  again = bytes < 0 && (errno == EAGAIN || errno == EINTR);
  data.resize(std::max<ssize_t>(bytes, 0));
  return data;
}

}  // namespace

void Process::Attach(const std::shared_ptr<ProcessReader>& reader, uint64_t offset) {
  After after;
  MutexLock lock(mu_);
  // The one before finds out by its next Read.
  if (std::shared_ptr<ProcessReader> before = reader_.lock(); before != nullptr) {
    after.Call([before] { before->Wake(); });
  }
  reader_ = reader;
  reader_id_ = reader.get();
  reader_waits_ = false;
  taken_ = offset;
  taken_at_ = std::chrono::steady_clock::now();
  stalled_ = false;
  read_to_ = ring_.end();
  ended_before_attach_ = exit_.has_value();
}

void Process::Detach(const ProcessReader* reader) {
  MutexLock lock(mu_);
  if (reader_id_ != reader) {
    return;
  }
  reader_.reset();
  reader_id_ = nullptr;
  reader_waits_ = false;
  ResumeReadingLocked();
}

Process::Next Process::Read(const ProcessReader* reader, uint64_t offset, bool has_info) {
  MutexLock lock(mu_);
  if (reader_id_ != reader) {
    return absl::AbortedError("another call has attached to this process");
  }
  if (refusal_.has_value()) {
    return *refusal_;
  }
  if (!has_info) {
    if (!started_) {
      reader_waits_ = true;
      return Pending{};
    }
    v1::ProcessInfo info = InfoLocked();
    if (!ended_before_attach_) {
      // As it was when it started, even if it has ended since.
      info.set_pid(pid_);
      info.clear_exit();
    }
    return info;
  }
  if (offset > taken_) {
    taken_ = offset;
    taken_at_ = std::chrono::steady_clock::now();
    stalled_ = false;
  }
  for (;;) {
    // Background children may go on writing for ever; that does not hold the exit back.
    if (exit_.has_value() && offset >= read_to_) {
      return *exit_;
    }
    OutputRing::Next next = ring_.Read(offset);
    if (auto* piece = std::get_if<OutputRing::Piece>(&next)) {
      return std::move(*piece);
    }
    if (auto* gap = std::get_if<v1::OutputGap>(&next)) {
      return *gap;
    }
    // While the reader keeps up it reads the pipes itself, which spares a wake-up for each piece.
    if (!exit_.has_value() && ReadOutputLocked(kMaxPiece, /*force=*/false)) {
      continue;
    }
    reader_waits_ = true;
    return Pending{};
  }
}

void Process::WakeReader() {
  After after;
  MutexLock lock(mu_);
  WakeReaderLocked(after);
}

void Process::WakeReaderLocked(After& after) {
  if (!reader_waits_) {
    return;
  }
  reader_waits_ = false;
  if (std::shared_ptr<ProcessReader> reader = reader_.lock(); reader != nullptr) {
    after.Call([reader] { reader->Wake(); });
  }
}

void Process::OnOutput(v1::OutputStream which) {
  After after;
  MutexLock lock(mu_);
  Source& source = which == v1::OUTPUT_STREAM_STDOUT ? out_ : err_;
  if (!source.fd.valid()) {
    return;
  }
  source.readable = true;
  if (ReadOutputLocked(kTurnBytes, /*force=*/false)) {
    WakeReaderLocked(after);
  }
  if (main_exited_) {
    TryFinishLocked(after);
  }
  if (source.readable && source.fd.valid() && !paused_) {
    loop_.Rearm(source.watch);  // the rest after the others' turn
  }
}

bool Process::ReadOutputLocked(uint64_t at_most, bool force) {
  uint64_t budget = at_most;
  bool got = false;
  Source* const sources[] = {err_first_ ? &err_ : &out_, err_first_ ? &out_ : &err_};
  for (Source* source : sources) {
    source->readable = source->readable || force;
    while (source->fd.valid() && source->readable && budget > 0) {
      if (!ReadSourceLocked(*source, budget, force)) {
        break;
      }
      got = true;
    }
  }
  if (budget == 0) {
    err_first_ = !err_first_;  // one that never ends must not keep the other from being read
  }
  return got;
}

bool Process::ReadSourceLocked(Source& source, uint64_t& budget, bool force) {
  if (!force && !HasRoomLocked()) {
    paused_ = true;
    if (reader_id_ != nullptr && stall_timer_ == 0 &&
        options_.spec.overflow() != v1::OVERFLOW_BLOCK) {
      SetTimerLocked(stall_timer_, taken_at_ + kStall, &Process::OnStall);
    }
    return false;
  }
  paused_ = false;
  int available = 0;
  ioctl(source.fd.get(), FIONREAD, &available);
  bool again = false;
  std::string data = ReadPiece(source.fd.get(), available, again);
  if (again) {
    source.readable = false;
    return false;
  }
  if (data.empty()) {
    CloseSourceLocked(source);  // end of file; EIO from a terminal that nobody holds any more
    return false;
  }
  if (available >= kDefaultPipe && !source.grown) {
    source.grown = true;
    fcntl(source.fd.get(), F_SETPIPE_SZ, kLargePipe);
  }
  budget -= std::min<uint64_t>(budget, data.size());
  ring_.Append(source.stream, std::move(data));
  if (forgotten_) {
    ring_.Trim(0, UINT64_MAX);
  }
  return true;
}

uint64_t Process::KeepFromLocked() const {
  if (options_.spec.overflow() == v1::OVERFLOW_BLOCK && !exit_.has_value()) {
    return taken_;
  }
  // Output that the attached reader is about to take is not dropped under its hands either: it reads
  // all as it comes, and a command that writes faster is slowed down to it.
  return reader_id_ != nullptr && !stalled_ ? taken_ : UINT64_MAX;
}

bool Process::HasRoomLocked() {
  ring_.Trim(options_.ring_bytes, KeepFromLocked());
  return ring_.cost() <= options_.ring_bytes;
}

void Process::ResumeReadingLocked() {
  paused_ = false;
  for (const Source* source : {&out_, &err_}) {
    if (source->fd.valid() && source->readable) {
      loop_.Rearm(source->watch);
    }
  }
}

void Process::OnStall() {
  MutexLock lock(mu_);
  stall_timer_ = 0;
  if (!paused_ || reader_id_ == nullptr) {
    return;
  }
  if (std::chrono::steady_clock::now() < taken_at_ + kStall) {
    SetTimerLocked(stall_timer_, taken_at_ + kStall, &Process::OnStall);
    return;
  }
  stalled_ = true;
  ResumeReadingLocked();
}

void Process::CloseSourceLocked(Source& source) {
  if (source.fd.valid()) {
    loop_.Unwatch(source.watch);
    source.fd.reset();
    source.readable = false;
  }
}

void Process::DropOutput() {
  MutexLock lock(mu_);
  forgotten_ = true;
  ring_.Trim(0, UINT64_MAX);
  if (empty_) {
    CloseSourceLocked(out_);
    CloseSourceLocked(err_);
  }
}

void Process::Send(const v1::ProcessInput& input, bool bounded, Done done) {
  After after;
  MutexLock lock(mu_);
  absl::Status status;
  const bool is_stop = input.input_case() == v1::ProcessInput::kStop;
  if (exit_.has_value() || refusal_.has_value() || (main_exited_ && !is_stop)) {
    if (!is_stop || empty_) {
      status = absl::FailedPreconditionError("the process has ended");
    }
  }
  if (status.ok()) {
    switch (input.input_case()) {
      case v1::ProcessInput::kStdin:
        status = QueueInputLocked(input, bounded, after);
        break;
      case v1::ProcessInput::kCloseStdin:
        if (in_closed_) {
          status = absl::FailedPreconditionError("its stdin is closed");
        } else if (options_.spec.has_terminal()) {
          input_.emplace_back(1, kEndOfFileCharacter);
          input_bytes_ += 1;
        } else {
          in_closed_ = true;
        }
        FlushInputLocked(after);
        break;
      case v1::ProcessInput::kResize:
        if (!options_.spec.has_terminal() || !out_.fd.valid()) {
          status = absl::FailedPreconditionError("the process has no terminal");
        } else {
          const auto clamp = [](uint32_t value, uint16_t otherwise) {
            return value == 0 ? otherwise : static_cast<uint16_t>(std::min(value, 65535U));
          };
          status = Resize(out_.fd.get(), {.rows = clamp(input.resize().rows(), 24),
                                          .columns = clamp(input.resize().columns(), 80)});
        }
        break;
      case v1::ProcessInput::kSignal:
        status = SignalLocked(input.signal());
        break;
      case v1::ProcessInput::kStop: {
        stopped_ = stopped_ || !exit_.has_value();
        stop_waiters_.push_back(std::move(done));
        std::chrono::nanoseconds grace = grace_;
        if (input.stop().has_grace()) {
          grace = std::chrono::seconds(input.stop().grace().seconds()) +
                  std::chrono::nanoseconds(input.stop().grace().nanos());
        }
        StopLocked(grace);
        return;
      }
      case v1::ProcessInput::INPUT_NOT_SET:
        status = absl::InvalidArgumentError("the input is empty");
        break;
    }
  }
  after.Call([done = std::move(done), status] { done(status); });
}

absl::Status Process::QueueInputLocked(const v1::ProcessInput& input, bool bounded, After& after) {
  if (in_closed_) {
    return absl::FailedPreconditionError("its stdin is closed");
  }
  const std::string& data = input.stdin();
  if (bounded && input_bytes_ + data.size() > kMaxQueuedInput) {
    return absl::ResourceExhaustedError(
        fmt::format("its stdin is full: {} bytes wait to be read", input_bytes_));
  }
  if (!data.empty()) {
    input_.push_back(data);
    input_bytes_ += data.size();
  }
  FlushInputLocked(after);
  return absl::OkStatus();
}

void Process::FlushInputLocked(After& after) {
  const bool terminal = options_.spec.has_terminal();
  const int fd = terminal ? out_.fd.get() : in_.get();
  while (fd >= 0 && !input_.empty()) {
    const std::string& front = input_.front();
    const ssize_t wrote = write(fd, front.data() + input_done_, front.size() - input_done_);
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote < 0 && errno == EAGAIN) {
      if (!terminal && in_watch_ == 0) {
        absl::StatusOr<uint64_t> watch = loop_.Watch(
            fd, EPOLLOUT | EPOLLET, [self = shared_from_this()](uint32_t) { self->OnInput(); });
        if (watch.ok()) {
          in_watch_ = *watch;
        }
      }
      break;
    }
    if (wrote < 0) {
      // Nobody reads it any more; the rest goes nowhere, as in a shell's pipe.
      input_.clear();
      input_bytes_ = 0;
      input_done_ = 0;
      CloseInputLocked(after);
      break;
    }
    input_done_ += wrote;
    input_bytes_ -= wrote;
    if (input_done_ == front.size()) {
      input_.pop_front();
      input_done_ = 0;
    }
  }
  if (input_.empty() && in_closed_) {
    CloseInputLocked(after);
  }
  if (input_bytes_ < kMaxQueuedInput) {
    for (std::function<void()>& room : std::exchange(room_waiters_, {})) {
      after.Call(std::move(room));
    }
  }
}

void Process::CloseInputLocked(After& after) {
  in_closed_ = true;
  if (in_.valid()) {
    if (in_watch_ != 0) {
      loop_.Unwatch(in_watch_);
    }
    in_.reset();
  }
  for (std::function<void()>& room : std::exchange(room_waiters_, {})) {
    after.Call(std::move(room));
  }
}

void Process::OnInput() {
  After after;
  MutexLock lock(mu_);
  FlushInputLocked(after);
}

bool Process::InputRoom(std::function<void()> room) {
  MutexLock lock(mu_);
  if (input_bytes_ < kMaxQueuedInput || exit_.has_value()) {
    return true;
  }
  room_waiters_.push_back(std::move(room));
  return false;
}

absl::Status Process::SignalLocked(int number) {
  if (number < 1 || number > 64) {
    return absl::InvalidArgumentError(fmt::format("{} is not the number of a signal", number));
  }
  if (pid_ == 0) {
    if (early_signals_.size() >= kMaxEarlySignals) {
      return absl::ResourceExhaustedError("too many signals wait for the command to start");
    }
    early_signals_.push_back(number);
    return absl::OkStatus();
  }
  if (kill(-pid_, number) != 0) {
    return errno == ESRCH ? absl::FailedPreconditionError("the process has ended")
                          : ErrnoStatus(errno, fmt::format("send signal {}", number));
  }
  return absl::OkStatus();
}

}  // namespace creel::shim
