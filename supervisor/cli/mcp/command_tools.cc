// exec and process: commands in the sandbox.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "supervisor/base/escape.h"
#include "supervisor/cli/mcp/arguments.h"
#include "supervisor/cli/mcp/bounded_output.h"
#include "supervisor/cli/mcp/tools.h"

namespace creel::cli::mcp {
namespace {

using gateway::v1::ExecRequest;
using gateway::v1::ExecResponse;
using shim::v1::Exit;
using shim::v1::ProcessEvent;
using std::chrono::steady_clock;

constexpr uint64_t kDefaultOutput = 64u << 10;
constexpr double kDefaultTimeout = 120;
constexpr size_t kPiece = 512u << 10;

std::string NewProcessId() {
  std::random_device random;
  return fmt::format("mcp-{:08x}{:08x}", random(), random());
}

// Says from time to time that a command still runs. Lives as long as the call waits for it.
class ProgressTicker {
 public:
  explicit ProgressTicker(const ToolCall& call) {
    if (call.progress) {
      thread_ = std::thread([this, progress = call.progress] { Run(progress); });
    }
  }
  ~ProgressTicker() {
    if (thread_.joinable()) {
      {
        MutexLock lock(mu_);
        done_ = true;
        changed_.SignalAll();
      }
      thread_.join();
    }
  }
  ProgressTicker(const ProgressTicker&) = delete;
  ProgressTicker& operator=(const ProgressTicker&) = delete;
  void Output(uint64_t bytes) { bytes_ = bytes; }

 private:
  static constexpr std::chrono::milliseconds kPeriod{500};

  void Run(const std::function<void(double, std::string_view)>& progress) {
    const auto began = steady_clock::now();
    auto next = began + kPeriod;
    MutexLock lock(mu_);
    while (!done_) {
      if (!changed_.WaitUntil(mu_, next) && !done_) {
        const std::chrono::duration<double> elapsed = steady_clock::now() - began;
        progress(elapsed.count(), fmt::format("running for {:.1f} s, {} bytes of output",
                                              elapsed.count(), bytes_.load()));
        next += kPeriod;
      }
    }
  }

  Mutex mu_;
  CondVar changed_;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  std::atomic<uint64_t> bytes_ = 0;
  std::thread thread_;
};

std::string ReadOnHint(const std::string& process_id, uint64_t from, uint64_t to) {
  return fmt::format(
      "\n[{} bytes left out here; read them with the tool process: "
      "{{\"action\":\"output\",\"process_id\":\"{}\",\"offset\":{}}}]\n",
      to - from, process_id, from);
}

// The end of a command in words; `result` is told what can be counted on.
std::string Describe(const Exit& exit, Json& structured, bool& is_error) {
  structured["elapsed_seconds"] =
      static_cast<double>(exit.elapsed().seconds()) + exit.elapsed().nanos() / 1e9;
  structured["timed_out"] = exit.timed_out();
  is_error = exit.timed_out();
  std::string words;
  switch (exit.how_case()) {
    case Exit::kCode:
      structured["exit_code"] = exit.code();
      words = fmt::format("exit status {}", exit.code());
      break;
    case Exit::kSignal:
      structured["signal"] = exit.signal();
      words = fmt::format("ended by signal {}", exit.signal());
      break;
    case Exit::kStartFailure:
      is_error = true;
      return "not started: " + Printable(exit.start_failure().message(), 1000);
    default:
      is_error = true;
      return "its end is not known: " +
             Printable(exit.lost().empty() ? "the supervisor told none" : exit.lost(), 1000);
  }
  if (exit.timed_out()) {
    words += ", as its time ran out; nothing of it is left";
  } else if (exit.stopped()) {
    words += ", as it was stopped";
  }
  return words;
}

absl::Status FillSpec(const Arguments& arguments, shim::v1::CommandSpec& spec) {
  if (arguments.has("command") == arguments.has("argv")) {
    return absl::InvalidArgumentError("give either `command` or `argv`");
  }
  if (arguments.has("command")) {
    spec.set_shell(arguments.Text("command"));
  } else {
    for (const Json& word : arguments.at("argv")) {
      spec.add_argv(word.get<std::string>());
    }
  }
  spec.set_cwd(arguments.Text("cwd"));
  if (arguments.has("env")) {
    for (const auto& [name, value] : arguments.at("env").items()) {
      (*spec.mutable_env())[name] = value.get<std::string>();
    }
  }
  const bool background = arguments.Flag("background");
  if (!background || arguments.has("timeout_seconds")) {
    const double timeout = arguments.Fraction("timeout_seconds", kDefaultTimeout);
    spec.mutable_timeout()->set_seconds(static_cast<int64_t>(timeout));
    spec.mutable_timeout()->set_nanos(
        static_cast<int32_t>((timeout - static_cast<double>(static_cast<int64_t>(timeout))) * 1e9));
  }
  spec.set_stdin(background || arguments.has("stdin"));
  return absl::OkStatus();
}

template <class Stream>
void Feed(Stream& stream, std::string_view input, bool close) {
  ExecRequest request;
  bool open = true;
  while (open && !input.empty()) {
    request.mutable_input()->set_stdin(std::string(input.substr(0, kPiece)));
    input.remove_prefix(std::min(kPiece, input.size()));
    open = stream.Write(request);
  }
  if (open && close) {
    request.mutable_input()->mutable_close_stdin();
    stream.Write(request);
  }
}

absl::StatusOr<ToolResult> Exec(ToolCall& call) {
  const Arguments arguments(call.arguments);
  ExecRequest request;
  gateway::v1::ExecStart& start = *request.mutable_start();
  call.Fill(*start.mutable_context());
  RETURN_IF_ERROR(FillSpec(arguments, *start.mutable_spec()));
  const bool background = arguments.Flag("background");
  const std::string process_id = NewProcessId();
  start.set_process_id(process_id);
  start.set_detach(background);

  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  const auto stream = stub->Exec(context.get());
  stream->Write(request);
  if (arguments.has("stdin")) {
    Feed(*stream, arguments.Text("stdin"), /*close=*/!background);
  }
  BoundedOutput output(arguments.Number("max_output_bytes", kDefaultOutput));
  Json structured = {{"process_id", process_id}};
  ProgressTicker ticker(call);
  ExecResponse response;
  while (stream->Read(&response)) {
    const ProcessEvent& event = response.event();
    if (event.has_started() && background) {
      context->TryCancel();  // it was detached, and goes on
      stream->Finish();
      structured["running"] = true;
      return ToolResult::OfText(
          fmt::format("started in the background as {}; see to it with the tool process",
                      process_id),
          structured);
    }
    if (event.has_output()) {
      output.Add(event.output().offset(), event.output().data());
      ticker.Output(output.end());
    } else if (event.has_exit()) {
      bool is_error = false;
      std::string text =
          output.Text([&](uint64_t from, uint64_t to) { return ReadOnHint(process_id, from, to); });
      const std::string end = Describe(event.exit(), structured, is_error);
      structured["running"] = false;
      structured["output_bytes"] = event.exit().output_bytes();
      structured["truncated"] = output.left_out() > 0;
      text += fmt::format("{}[{}]", text.empty() || text.back() == '\n' ? "" : "\n", end);
      ToolResult result = ToolResult::OfText(std::move(text), std::move(structured));
      result.is_error = is_error;
      return result;
    }
  }
  RETURN_IF_ERROR(FromGrpc(stream->Finish()));
  return absl::InternalError("the command's end was not told");
}

// --- process
// --------------------------------------------------------------------------------------

absl::StatusOr<ToolResult> ListProcesses(ToolCall& call) {
  gateway::v1::ListProcessesRequest request;
  call.Fill(*request.mutable_context());
  gateway::v1::ListProcessesResponse response;
  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  RETURN_IF_ERROR(FromGrpc(stub->ListProcesses(context.get(), request, &response)));
  Json list = Json::array();
  std::string text;
  for (const shim::v1::ProcessInfo& process : response.processes()) {
    Json entry = {{"process_id", process.process_id()},
                  {"running", !process.has_exit()},
                  {"output_begin", process.output_begin()},
                  {"output_end", process.output_end()}};
    std::string end = "running";
    if (process.has_exit()) {
      bool is_error = false;
      end = Describe(process.exit(), entry, is_error);
    }
    std::string command = process.spec().shell();
    for (const std::string& word : process.spec().argv()) {
      command += (command.empty() ? "" : " ") + word;
    }
    entry["command"] = Printable(command, 400);
    text += fmt::format("{}  {}  {} bytes of output  {}\n", process.process_id(), end,
                        process.output_end(), Printable(command, 120));
    list.push_back(std::move(entry));
  }
  return ToolResult::OfText(text.empty() ? "no commands" : text, {{"processes", std::move(list)}});
}

// Reads what there is from `offset` on, and waits for more for a while if there is nothing.
absl::StatusOr<ToolResult> ReadOutput(ToolCall& call, bool until_exit) {
  const Arguments arguments(call.arguments);
  const std::string process_id = arguments.Text("process_id");
  const uint64_t max_bytes = arguments.Number("max_bytes", kDefaultOutput);
  const double wait = arguments.Fraction("wait_seconds", until_exit ? 30 : 0);
  gateway::v1::AttachProcessRequest request;
  gateway::v1::AttachStart& attach = *request.mutable_attach();
  call.Fill(*attach.mutable_context());
  attach.set_process_id(process_id);
  attach.set_offset(arguments.Number("offset", 0));

  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  // What is kept comes at once; the rest of the time is for the command.
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::milliseconds(static_cast<int64_t>(wait * 1000) + 1500));
  const auto stream = stub->AttachProcess(context.get());
  stream->Write(request);
  ProgressTicker ticker(call);
  std::string text;
  uint64_t next = arguments.Number("offset", 0);
  uint64_t known_end = 0;
  uint64_t missed = 0;
  Json structured = {{"process_id", process_id}, {"running", true}};
  std::string end;
  bool is_error = false;
  bool full = false;
  gateway::v1::AttachProcessResponse response;
  while (stream->Read(&response)) {
    const ProcessEvent& event = response.event();
    if (event.has_started()) {
      known_end = event.started().output_end();
      if (known_end <= next && !event.started().has_exit() && wait == 0) {
        break;
      }
    } else if (event.has_gap()) {
      missed += event.gap().to() - event.gap().from();
      next = event.gap().to();
    } else if (event.has_output()) {
      const std::string& data = event.output().data();
      const size_t taken = std::min<uint64_t>(data.size(), max_bytes - text.size());
      text.append(data, 0, taken);
      next = event.output().offset() + taken;
      ticker.Output(next);
      full = text.size() >= max_bytes;
      if (full || (!until_exit && next >= known_end)) {
        break;
      }
    } else if (event.has_exit()) {
      end = Describe(event.exit(), structured, is_error);
      structured["running"] = false;
      structured["output_bytes"] = event.exit().output_bytes();
    }
  }
  context->TryCancel();
  const grpc::Status status = stream->Finish();
  const bool expected = status.error_code() == grpc::StatusCode::CANCELLED ||
                        status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  if (call.cancellation.cancelled() || (!status.ok() && !expected)) {
    return FromGrpc(status);
  }
  structured["next_offset"] = next;
  structured["missed_bytes"] = missed;
  if (missed > 0) {
    text.insert(0, fmt::format("[{} bytes are no longer kept]\n", missed));
  }
  const char* const newline = text.empty() || text.back() == '\n' ? "" : "\n";
  text += newline + (end.empty() ? fmt::format("[still running; read on with offset {}]", next)
                     : full      ? fmt::format("[more; read on with offset {}]", next)
                                 : fmt::format("[{}]", end));
  return ToolResult::OfText(std::move(text), std::move(structured));
}

std::optional<int> SignalOf(const std::string& name) {
  struct Row {
    const char* name;
    int number;
  };
  static constexpr std::array<Row, 10> kSignals{{{"HUP", SIGHUP},
                                                 {"INT", SIGINT},
                                                 {"QUIT", SIGQUIT},
                                                 {"KILL", SIGKILL},
                                                 {"USR1", SIGUSR1},
                                                 {"USR2", SIGUSR2},
                                                 {"TERM", SIGTERM},
                                                 {"CONT", SIGCONT},
                                                 {"STOP", SIGSTOP},
                                                 {"WINCH", SIGWINCH}}};
  const std::string bare = name.starts_with("SIG") ? name.substr(3) : name;
  const auto* const found = std::find_if(kSignals.begin(), kSignals.end(),
                                         [&](const Row& row) { return bare == row.name; });
  return found == kSignals.end() ? std::nullopt : std::optional<int>(found->number);
}

absl::StatusOr<ToolResult> SendToProcess(ToolCall& call, shim::v1::ProcessInput input,
                                         const std::string& done) {
  gateway::v1::SendInputRequest request;
  call.Fill(*request.mutable_context());
  request.set_process_id(Arguments(call.arguments).Text("process_id"));
  *request.mutable_input() = std::move(input);
  gateway::v1::SendInputResponse response;
  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  RETURN_IF_ERROR(FromGrpc(stub->SendInput(context.get(), request, &response)));
  return ToolResult::OfText(done);
}

absl::StatusOr<ToolResult> Process(ToolCall& call) {
  const Arguments arguments(call.arguments);
  const std::string action = arguments.Text("action");
  if (action == "list") {
    return ListProcesses(call);
  }
  if (!arguments.has("process_id")) {
    return absl::InvalidArgumentError(fmt::format("`process_id` is missing for {}", action));
  }
  if (action == "output" || action == "wait") {
    return ReadOutput(call, action == "wait");
  }
  shim::v1::ProcessInput input;
  if (action == "write") {
    input.set_stdin(arguments.Text("input"));
    return SendToProcess(call, std::move(input),
                         fmt::format("wrote {} bytes", arguments.Text("input").size()));
  }
  if (action == "close_stdin") {
    input.mutable_close_stdin();
    return SendToProcess(call, std::move(input), "its input has ended");
  }
  if (action == "signal") {
    const std::optional<int> signal = SignalOf(arguments.Text("signal", "TERM"));
    if (!signal) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is no signal; such as INT, TERM, KILL", arguments.Text("signal")));
    }
    input.set_signal(*signal);
    return SendToProcess(call, std::move(input), "sent");
  }
  input.mutable_stop();
  return SendToProcess(call, std::move(input), "stopped; nothing of it is left");
}

}  // namespace

std::vector<Tool> CommandTools() {
  return {
      {.name = "exec",
       .title = "Run a command",
       .description =
           "Runs a command in the session's sandbox and returns its output and exit status. Long "
           "output is cut in the middle; the place says how to read it. With `background` it "
           "returns at once; see to the command with the tool process.",
       .schema = Schema(R"({"properties": {
         "command": {"type": "string", "minLength": 1, "description": "A line for /bin/sh"},
         "argv": {"type": "array", "items": {"type": "string"}, "maxItems": 4096,
                  "description": "A program and its arguments, instead of command"},
         "cwd": {"type": "string", "description": "Where to run it; default: the workspace"},
         "env": {"type": "object", "additionalProperties": {"type": "string"},
                 "description": "Further variables"},
         "stdin": {"type": "string", "description": "What the command reads"},
         "timeout_seconds": {"type": "number", "minimum": 0.1, "maximum": 86400,
           "description": "The command and all it started are stopped after this; default: 120, in the background none"},
         "background": {"type": "boolean", "description": "Do not wait for its end"},
         "max_output_bytes": {"type": "integer", "minimum": 256, "maximum": 1048576,
           "description": "How much output to return; default: 65536"}}})"),
       .annotations = {{"readOnlyHint", false},
                       {"destructiveHint", true},
                       {"idempotentHint", false},
                       {"openWorldHint", true}},
       .run = Exec},
      {.name = "process",
       .title = "See to commands",
       .description =
           "Commands of the session that run or ended lately: list them, read output from an "
           "offset, wait for the end, write to their input, signal them, stop them with all they "
           "started.",
       .schema = Schema(R"({"required": ["action"], "properties": {
         "action": {"type": "string",
           "enum": ["list", "output", "wait", "write", "close_stdin", "signal", "stop"]},
         "process_id": {"type": "string", "minLength": 1},
         "offset": {"type": "integer", "minimum": 0, "description": "output, wait: first byte; default: 0"},
         "max_bytes": {"type": "integer", "minimum": 1, "maximum": 1048576,
           "description": "output, wait: at most this much; default: 65536"},
         "wait_seconds": {"type": "number", "minimum": 0, "maximum": 600,
           "description": "output: how long to wait for new output, default 0; wait: for the end, default 30"},
         "input": {"type": "string", "description": "write: the bytes"},
         "signal": {"type": "string", "description": "signal: its name, such as INT; default: TERM"}}})"),
       .annotations = {{"readOnlyHint", false},
                       {"destructiveHint", true},
                       {"idempotentHint", false},
                       {"openWorldHint", false}},
       .run = Process}};
}

}  // namespace creel::cli::mcp
