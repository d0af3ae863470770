#include "supervisor/cli/mcp/server.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <memory>
#include <thread>

#include "supervisor/base/escape.h"
#include "supervisor/cli/mcp/arguments.h"
#include "supervisor/cli/mcp/call.h"
#include "supervisor/cli/mcp/json_rpc.h"
#include "supervisor/cli/mcp/protocol.h"
#include "supervisor/cli/mcp/tools.h"
#include "supervisor/cli/output.h"

namespace creel::cli::mcp {
namespace {

constexpr size_t kMaxLine = 16u << 20;
constexpr size_t kMaxCalls = 32;
// When stdin has ended: for calls that are about to answer, then for those that were cancelled.
constexpr std::chrono::milliseconds kLastAnswers{200};
constexpr std::chrono::milliseconds kLastCancels{5000};

class Server {
 public:
  Server(const Globals& globals, const ServerOptions& options)
      : options_(options), door_(globals) {}

  absl::Status TryDoor() { return door_.Stub().status(); }

  void Run() {
    LineReader reader(STDIN_FILENO, kMaxLine);
    std::string line;
    while (writer_.open()) {
      switch (reader.Next(line)) {
        case LineReader::Outcome::kLine:
          if (line.find_first_not_of(" \t\r") != std::string::npos) {
            OnLine(line);
          }
          break;
        case LineReader::Outcome::kTooLong:
          writer_.Error(nullptr, {ErrorCode::kInvalidRequest,
                                  fmt::format("a message has more than {} bytes", kMaxLine)});
          break;
        case LineReader::Outcome::kEnd:
          WaitForCalls(kLastAnswers);
          CancelAll();
          WaitForCalls(kLastCancels);
          return;
      }
    }
    CancelAll();
    WaitForCalls(kLastCancels);
  }

 private:
  void OnLine(const std::string& line) {
    auto parsed = ParseMessage(line);
    if (const auto* bad = std::get_if<BadMessage>(&parsed)) {
      writer_.Error(bad->id, bad->error);
      return;
    }
    if (auto* message = std::get_if<Message>(&parsed)) {
      message->id ? OnRequest(*message) : OnNotification(*message);
    }
  }

  void OnNotification(const Message& message) {
    if (message.method != "notifications/cancelled" || !message.params.contains("requestId")) {
      return;
    }
    std::shared_ptr<Cancellation> cancellation;
    {
      MutexLock lock(mu_);
      const auto call = calls_.find(message.params["requestId"]);
      if (call == calls_.end()) {
        return;  // it has been answered
      }
      cancellation = call->second;
    }
    cancellation->Cancel();
  }

  void OnRequest(Message& message) {
    const Json& id = *message.id;
    const auto spoken = EraOf(message);
    if (const auto* error = std::get_if<RpcError>(&spoken)) {
      writer_.Error(id, *error);
      return;
    }
    const Era era = std::get<Era>(spoken);
    if (message.method == "tools/call") {
      OnCall(message, era);
    } else if (message.method == "tools/list") {
      if (message.params.contains("cursor")) {
        writer_.Error(id,
                      {ErrorCode::kInvalidParams, "there is one page only; leave out `cursor`"});
      } else {
        writer_.Result(id, Dress(ListTools(), era, /*cacheable=*/true));
      }
    } else if (era == Era::kPerRequest && message.method == "server/discover") {
      writer_.Result(id, Dress(AnswerDiscover(options_.session), era, /*cacheable=*/true));
    } else if (era == Era::kHandshake && message.method == "initialize") {
      const auto answer = AnswerInitialize(message.params, options_.session);
      if (const auto* error = std::get_if<RpcError>(&answer)) {
        writer_.Error(id, *error);
      } else {
        writer_.Result(id, std::get<Json>(answer));
      }
    } else if (era == Era::kHandshake && message.method == "ping") {
      writer_.Result(id, Json::object());
    } else {
      writer_.Error(id, {ErrorCode::kMethodNotFound,
                         fmt::format("there is no method '{}'", Printable(message.method, 100))});
    }
  }

  static Json ListTools() {
    Json tools = Json::array();
    for (const Tool& tool : Tools()) {
      Json annotations = tool.annotations;
      annotations["title"] = tool.title;
      tools.push_back({{"name", tool.name},
                       {"title", tool.title},
                       {"description", tool.description},
                       {"inputSchema", tool.schema},
                       {"annotations", std::move(annotations)}});
    }
    return {{"tools", std::move(tools)}};
  }

  void OnCall(Message& message, Era era) {
    const Json id = *message.id;
    const auto name = message.params.find("name");
    if (name == message.params.end() || !name->is_string()) {
      writer_.Error(id, {ErrorCode::kInvalidParams, "`name` must be a text"});
      return;
    }
    const Tool* tool = nullptr;
    for (const Tool& each : Tools()) {
      tool = *name == each.name ? &each : tool;
    }
    if (tool == nullptr) {
      writer_.Error(
          id, {ErrorCode::kInvalidParams,
               fmt::format("there is no tool '{}'", Printable(name->get<std::string>(), 100))});
      return;
    }
    Json arguments = message.params.value("arguments", Json::object());
    if (const auto misfit = FindMisfit(tool->schema, arguments)) {
      writer_.Error(id, {ErrorCode::kInvalidParams, fmt::format("{}: {}", tool->name, *misfit)});
      return;
    }
    const auto cancellation = std::make_shared<Cancellation>();
    {
      MutexLock lock(mu_);
      if (calls_.contains(id)) {
        writer_.Error(id, {ErrorCode::kInvalidRequest, "a request of this `id` is being answered"});
        return;
      }
      if (calls_.size() >= kMaxCalls) {
        writer_.Error(id, {ErrorCode::kServerBusy,
                           fmt::format("{} calls run already; wait for one", kMaxCalls)});
        return;
      }
      calls_[id] = cancellation;
      ++running_;
    }
    Json token = nullptr;
    if (const auto meta = message.params.find("_meta");
        meta != message.params.end() && meta->is_object()) {
      token = meta->value("progressToken", Json(nullptr));
    }
    std::thread([this, id, tool, era, token, arguments = std::move(arguments), cancellation] {
      Carry(id, *tool, era, token, arguments, *cancellation);
    }).detach();
  }

  // In a thread of its own, until the tool is done.
  void Carry(const Json& id, const Tool& tool, Era era, const Json& token, const Json& arguments,
             Cancellation& cancellation) {
    ToolCall call{.door = door_,
                  .cancellation = cancellation,
                  .session = options_.session,
                  .sender = options_.sender,
                  .id = "mcp-" + (id.is_string() ? id.get<std::string>() : id.dump()).substr(0, 48),
                  .arguments = arguments,
                  .progress = nullptr};
    if (token.is_string() || token.is_number_integer()) {
      call.progress = [this, token](double done, std::string_view words) {
        writer_.Notify("notifications/progress",
                       {{"progressToken", token}, {"progress", done}, {"message", words}});
      };
    }
    absl::StatusOr<ToolResult> result = tool.run(call);
    const bool cancelled = cancellation.cancelled();
    if (!result.ok()) {
      const absl::Status status = result.status();
      result = ToolResult::OfText(std::string(status.message()));
      result->is_error = true;
    }
    {
      MutexLock lock(mu_);
      calls_.erase(id);
    }
    // The one who cancelled waits for no answer.
    if (!cancelled) {
      Json answer = {{"content", std::move(result->content)}, {"isError", result->is_error}};
      if (!result->structured.is_null()) {
        answer["structuredContent"] = std::move(result->structured);
      }
      writer_.Result(id, Dress(std::move(answer), era, /*cacheable=*/false));
    }
    MutexLock lock(mu_);
    --running_;
    changed_.SignalAll();
  }

  void CancelAll() {
    MutexLock lock(mu_);
    for (const auto& [id, cancellation] : calls_) {
      cancellation->Cancel();
    }
  }

  void WaitForCalls(std::chrono::milliseconds patience) {
    const auto until = std::chrono::steady_clock::now() + patience;
    MutexLock lock(mu_);
    while (running_ > 0 && changed_.WaitUntil(mu_, until)) {
    }
  }

  const ServerOptions options_;
  Door door_;
  Writer writer_{STDOUT_FILENO};
  Mutex mu_;
  CondVar changed_;
  std::map<Json, std::shared_ptr<Cancellation>> calls_ ABSL_GUARDED_BY(mu_);
  size_t running_ ABSL_GUARDED_BY(mu_) = 0;  // threads that still use this object
};

}  // namespace

int Serve(const Globals& globals, const ServerOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  // Its threads may outlive the wait for them; they end with the process.
  auto* const server = new Server(globals, options);
  if (const absl::Status status = server->TryDoor(); !status.ok()) {
    return Fail(status);
  }
  server->Run();
  _exit(0);
}

}  // namespace creel::cli::mcp
