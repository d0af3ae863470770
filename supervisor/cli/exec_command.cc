#include "supervisor/cli/exec_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

#include "supervisor/base/escape.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/cli/output.h"
#include "supervisor/cli/terminal.h"

namespace creel::cli {
namespace {

using Stream = grpc::ClientReaderWriter<gateway::v1::ExecRequest, gateway::v1::ExecResponse>;
using shim::v1::Exit;

constexpr int kCreelFailed = 125;
constexpr int kTimedOut = 124;

absl::Status AddVariable(const std::string& text, shim::v1::CommandSpec& spec) {
  const size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  if (name.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not a variable; write NAME=VALUE, or NAME to pass on your own", text));
  }
  if (equals != std::string::npos) {
    (*spec.mutable_env())[name] = text.substr(equals + 1);
  } else if (const char* const value = std::getenv(name.c_str())) {
    (*spec.mutable_env())[name] = value;
  }
  return absl::OkStatus();
}

absl::Status AddVariables(const std::string& text, const std::string& from,
                          shim::v1::CommandSpec& spec) {
  std::istringstream lines(text);
  if (text.find('\0') != std::string::npos) {
    for (std::string variable; std::getline(lines, variable, '\0');) {
      if (absl::Status status = AddVariable(variable, spec); !status.ok()) {
        return Annotate(status, from);
      }
    }
    return absl::OkStatus();
  }
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.empty() || line[0] == '#') {
      continue;
    }
    if (absl::Status status = AddVariable(line, spec); !status.ok()) {
      return Annotate(status, fmt::format("{}:{}", from, number));
    }
  }
  return absl::OkStatus();
}

std::string ReadAll(int fd) {
  std::string text;
  std::array<char, 4096> piece{};
  ssize_t got = 0;
  while ((got = read(fd, piece.data(), piece.size())) > 0 || (got < 0 && errno == EINTR)) {
    text.append(piece.data(), got > 0 ? static_cast<size_t>(got) : 0);
  }
  return text;
}

// "90", "1.5s", "500ms", "2m", "1h".
absl::Status SetTimeout(const std::string& text, shim::v1::CommandSpec& spec) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const double factor = unit.empty() || unit == "s" ? 1
                        : unit == "ms"              ? 0.001
                        : unit == "m"               ? 60
                        : unit == "h"               ? 3600
                                                    : 0;
  if (end == text.c_str() || factor == 0 || !(number > 0) || number * factor > 1e9) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no time-out; write it like 30s, 500ms, 5m or 1h", text));
  }
  const double seconds = number * factor;
  spec.mutable_timeout()->set_seconds(static_cast<int64_t>(seconds));
  spec.mutable_timeout()->set_nanos(
      static_cast<int32_t>((seconds - static_cast<double>(static_cast<int64_t>(seconds))) * 1e9));
  return absl::OkStatus();
}

// "24x80": rows and columns.
absl::Status SetTerminal(const std::string& text, shim::v1::CommandSpec& spec) {
  unsigned rows = 0;
  unsigned columns = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%ux%u%c", &rows, &columns, &rest) != 2 || rows == 0 ||
      columns == 0 || rows > 10000 || columns > 10000) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no size of a terminal; write ROWSxCOLUMNS, such as 24x80", text));
  }
  spec.mutable_terminal()->set_rows(rows);
  spec.mutable_terminal()->set_columns(columns);
  return absl::OkStatus();
}

absl::StatusOr<gateway::v1::ExecRequest> MakeRequest(const ExecOptions& options) {
  gateway::v1::ExecRequest request;
  gateway::v1::ExecStart& start = *request.mutable_start();
  start.mutable_context()->set_session(options.session);
  start.mutable_context()->set_sender(options.sender);
  start.mutable_context()->set_tool_call_id(options.tool_call_id);
  start.set_process_id(options.process_id);
  shim::v1::CommandSpec& spec = *start.mutable_spec();
  for (const std::string& word : options.command) {
    spec.add_argv(word);
  }
  spec.set_cwd(options.cwd);
  // What goes to a pipe or a file must arrive whole, however slow the reader is.
  spec.set_overflow(shim::v1::OVERFLOW_BLOCK);
  spec.set_stdin(options.interactive || options.terminal);
  if (options.terminal) {
    *spec.mutable_terminal() = SizeOfTerminal();
    if (const char* const term = std::getenv("TERM")) {
      (*spec.mutable_env())["TERM"] = term;
    }
  }
  if (!options.pty.empty()) {
    RETURN_IF_ERROR(SetTerminal(options.pty, spec));
    (*spec.mutable_env())["TERM"] = "xterm";
  }
  if (!options.timeout.empty()) {
    RETURN_IF_ERROR(SetTimeout(options.timeout, spec));
  }
  if (!options.env_file.empty()) {
    const UniqueFd file(open(options.env_file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid()) {
      return absl::NotFoundError(fmt::format("cannot read the file '{}'", options.env_file));
    }
    RETURN_IF_ERROR(AddVariables(ReadAll(file.get()), options.env_file, spec));
  }
  if (options.env_fd >= 0) {
    RETURN_IF_ERROR(
        AddVariables(ReadAll(options.env_fd), fmt::format("descriptor {}", options.env_fd), spec));
  }
  for (const std::string& variable : options.env) {
    RETURN_IF_ERROR(AddVariable(variable, spec));
  }
  return request;
}

// Carries our stdin, our terminal's size and our signals to the command, in threads of its own that
// end with the process. Lives as long.
class Feeder {
 public:
  Feeder(grpc::ClientContext& context, Stream& stream, const ExecOptions& options, UniqueFd signals)
      : context_(context),
        stream_(stream),
        terminal_(options.terminal),
        signals_(std::move(signals)) {
    std::thread([this] { CarrySignals(); }).detach();
    if (options.interactive || options.terminal) {
      std::thread([this] { CarryStdin(); }).detach();
    }
  }

  // The signal for which the call was given up; 0 if it was not.
  [[nodiscard]] int left_for() const { return left_for_; }

 private:
  void CarryStdin() {
    std::string buffer(kPiece, '\0');
    gateway::v1::ExecRequest request;
    bool open = true;
    while (open) {
      const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got < 0 && errno == EAGAIN) {
        pollfd waiting{STDIN_FILENO, POLLIN, 0};
        poll(&waiting, 1, -1);
        continue;
      }
      if (got > 0) {
        request.mutable_input()->set_stdin(buffer.data(), static_cast<size_t>(got));
      } else {
        request.mutable_input()->mutable_close_stdin();
        open = false;
      }
      const std::lock_guard<std::timed_mutex> lock(writing_);
      open = stream_.Write(request) && open;
    }
  }

  void CarrySignals() {
    while (true) {
      signalfd_siginfo info{};
      if (read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
        OnSignal(static_cast<int>(info.ssi_signo));
      }
    }
  }

  void OnSignal(int signal) {
    gateway::v1::ExecRequest request;
    if (signal == SIGWINCH) {
      if (!terminal_) {
        return;
      }
      *request.mutable_input()->mutable_resize() = SizeOfTerminal();
    } else if (stopping_) {
      RestoreTerminal();
      _exit(128 + signal);  // asked twice: do not wait for the sandbox
    } else {
      stopping_ = true;
      request.mutable_input()->mutable_stop();
    }
    const std::unique_lock<std::timed_mutex> lock(writing_, kStdinMayHoldUp);
    if (lock.owns_lock()) {
      stream_.Write(request);
    } else if (request.input().has_stop()) {
      // The command does not take its input, and a stop cannot pass that by. Leaving ends it too.
      left_for_ = signal;
      context_.TryCancel();
    }
  }

  static constexpr size_t kPiece = 64u << 10;
  static constexpr std::chrono::milliseconds kStdinMayHoldUp{100};

  grpc::ClientContext& context_;
  Stream& stream_;
  const bool terminal_;
  const UniqueFd signals_;
  bool stopping_ = false;  // in the signals' thread only
  std::timed_mutex writing_;
  std::atomic<int> left_for_ = 0;
};

int CodeOf(const Exit& exit) {
  if (exit.timed_out()) {
    Fail("the command ran out of time and was stopped");
    return kTimedOut;
  }
  switch (exit.how_case()) {
    case Exit::kCode:
      return exit.code() & 255;
    case Exit::kSignal:
      return 128 + (exit.signal() & 127);
    case Exit::kStartFailure: {
      Fail(exit.start_failure().message());
      const bool missing = exit.start_failure().error() == ENOENT &&
                           exit.start_failure().step() == shim::v1::START_STEP_EXEC;
      return missing ? 127 : 126;
    }
    default:
      return Fail(exit.lost().empty() ? "the supervisor told no exit" : exit.lost(), kCreelFailed);
  }
}

UniqueFd TakeSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH}) {
    sigaddset(&set, signal);
  }
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return UniqueFd(signalfd(-1, &set, SFD_CLOEXEC));
}

}  // namespace

int Exec(const Globals& globals, const ExecOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  // Before gRPC makes its threads, which then have them blocked too.
  UniqueFd signals = TakeSignals();
  if (options.terminal && isatty(STDIN_FILENO) == 0) {
    return Fail("-t needs a terminal on stdin; leave it out, or use -i to pipe input",
                kCreelFailed);
  }
  const absl::StatusOr<gateway::v1::ExecRequest> request = MakeRequest(options);
  if (!request.ok()) {
    return Fail(request.status(), kCreelFailed);
  }
  const auto stub = ConnectGateway(globals);
  if (!stub.ok()) {
    return Fail(stub.status(), kCreelFailed);
  }
  grpc::ClientContext context;
  context.set_initial_metadata_corked(true);
  const std::unique_ptr<Stream> stream = (*stub)->Exec(&context);
  stream->Write(*request);
  std::optional<RawTerminal> raw;
  if (options.terminal) {
    raw.emplace();
  }
  // Lives until the process ends, as its threads are not waited for.
  const auto* const feeder = new Feeder(context, *stream, options, std::move(signals));

  std::optional<Exit> exit;
  gateway::v1::ExecResponse response;
  while (!exit && stream->Read(&response)) {
    const shim::v1::ProcessEvent& event = response.event();
    if (globals.json) {
      PrintJson(event);
    }
    if (event.has_output() && !globals.json) {
      const bool err = event.output().stream() == shim::v1::OUTPUT_STREAM_STDERR;
      if (!WriteAll(err ? STDERR_FILENO : STDOUT_FILENO, event.output().data())) {
        RestoreTerminal();
        _exit(128 + SIGPIPE);  // nobody reads us any more; going away stops the command
      }
    } else if (event.has_gap()) {
      Fail(fmt::format("{} bytes of output were lost", event.gap().to() - event.gap().from()));
    } else if (event.has_exit()) {
      exit = event.exit();
    }
  }
  raw.reset();
  // Not by way of main: taking gRPC down costs more than the whole command, and the feeder still
  // uses the stream.
  if (exit) {
    _exit(CodeOf(*exit));
  }
  const grpc::Status status = stream->Finish();
  _exit(feeder->left_for() != 0 ? 128 + feeder->left_for() : Fail(status, kCreelFailed));
}

}  // namespace creel::cli
