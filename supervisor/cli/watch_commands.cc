#include "supervisor/cli/watch_commands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <spawn.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "creel/operator/v1/operator.grpc.pb.h"
#include "creel/operator/v1/page.grpc.pb.h"
#include "creel/operator/v1/record.grpc.pb.h"
#include "supervisor/base/escape.h"
#include "supervisor/cli/operator_call.h"
#include "supervisor/cli/output.h"

namespace creel::cli {
namespace {

namespace o = operator_::v1;

constexpr std::chrono::milliseconds kLookAgain{400};
constexpr size_t kMaxLine = 4096;

// Makes one call of a service and tells the error if there is one.
template <typename Stub, typename Request, typename Response>
int Ask(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
        const Request& request, Response* response) {
  grpc::ClientContext context;
  const grpc::Status status = (stub.*method)(&context, request, response);
  return status.ok() ? 0 : Fail(status);
}

// Has the desktop open an address, where there is one.
void OpenInBrowser(const std::string& url) {
  const char* const x11 = std::getenv("DISPLAY");
  const char* const wayland = std::getenv("WAYLAND_DISPLAY");
  if (isatty(STDOUT_FILENO) == 0 || (x11 == nullptr && wayland == nullptr)) {
    return;
  }
  std::string program = "xdg-open";
  std::string argument = url;
  char* argv[] = {program.data(), argument.data(), nullptr};
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
  }
  // It outlives this terminal.
  posix_spawnattr_t apart;
  posix_spawnattr_init(&apart);
  posix_spawnattr_setflags(&apart, POSIX_SPAWN_SETSID);
  pid_t pid = 0;
  // If that fails the address was printed all the same.
  posix_spawnp(&pid, argv[0], &files, &apart, argv, environ);
  posix_spawnattr_destroy(&apart);
  posix_spawn_file_actions_destroy(&files);
}

int Page(const Globals& globals, bool no_open, bool close) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  const auto stub = o::Page::NewStub(*channel);
  if (close) {
    o::ClosePageResponse closed;
    const int code = Ask(*stub, &o::Page::Stub::ClosePage, o::ClosePageRequest(), &closed);
    if (code == 0 && !globals.json) {
      Say("every browser is logged out");
    }
    return code != 0 || !globals.json ? code : PrintJson(closed);
  }
  o::OpenPageResponse opened;
  if (const int code = Ask(*stub, &o::Page::Stub::OpenPage, o::OpenPageRequest(), &opened);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(opened);
  }
  Say(opened.url());
  if (isatty(STDOUT_FILENO) != 0) {
    Say("It logs one browser in, once, within five minutes.");
  }
  if (!no_open) {
    OpenInBrowser(opened.url());
  }
  return 0;
}

std::string CommandLine(const shim::v1::CommandSpec& spec) {
  std::string line = spec.shell();
  for (const std::string& word : spec.argv()) {
    line += (line.empty() ? "" : " ") + word;
  }
  return Printable(line, 256);
}

// What commands have printed, each line with its command's name in front; several at a time.
class Logs {
 public:
  Logs(std::unique_ptr<o::Page::Stub> stub, bool json, std::string session, bool follow)
      : stub_(std::move(stub)), json_(json), session_(std::move(session)), follow_(follow) {}

  int Run(const std::string& only) {
    std::set<std::string> known;
    std::vector<std::thread> readers;
    int code = 0;
    do {
      o::ListCommandsRequest request;
      request.set_session(session_);
      o::ListCommandsResponse response;
      code = Ask(*stub_, &o::Page::Stub::ListCommands, request, &response);
      for (const shim::v1::ProcessInfo& command : response.commands()) {
        const std::string& id = command.process_id();
        if ((!only.empty() && only != id) || !known.insert(id).second) {
          continue;
        }
        if (follow_) {
          readers.emplace_back([this, command] { Read(command); });
        } else {
          Read(command);
        }
      }
      if (!only.empty() && known.empty() && code == 0) {
        code = Fail(fmt::format("no command '{}' runs or is remembered in that session",
                                Printable(only, 64)));
      }
      if (follow_ && code == 0) {
        std::this_thread::sleep_for(kLookAgain);
      }
      // One command is followed to its end, a session until it ends or we are interrupted.
    } while (follow_ && code == 0 && !broken_ && only.empty());
    for (std::thread& reader : readers) {
      reader.join();
    }
    return broken_ ? 1 : code;
  }

 private:
  void Read(const shim::v1::ProcessInfo& command) {
    const std::string id = command.process_id();
    o::ReadOutputRequest request;
    request.set_session(session_);
    request.set_process_id(id);
    request.set_follow(follow_);
    grpc::ClientContext context;
    const auto reader = stub_->ReadOutput(&context, request);
    o::ReadOutputResponse response;
    std::map<int, std::string> rest;  // of each stream: what is no whole line yet
    while (!broken_ && reader->Read(&response)) {
      const shim::v1::ProcessEvent& event = response.event();
      if (json_) {
        std::lock_guard lock(mu_);
        broken_ = PrintJson(response) != 0 || broken_;
      } else if (event.has_started()) {
        Line(id, "$ " + CommandLine(event.started().spec()));
      } else if (event.has_output()) {
        std::string& text = rest[event.output().stream()];
        text += event.output().data();
        size_t from = 0;
        for (size_t end = 0; (end = text.find('\n', from)) != std::string::npos; from = end + 1) {
          Line(id, text.substr(from, end - from));
        }
        text.erase(0, from);
        if (text.size() > kMaxLine) {
          Line(id, std::exchange(text, {}));
        }
      } else if (event.has_gap()) {
        Line(id, fmt::format("… {} are not kept", Size(event.gap().to() - event.gap().from())));
      } else if (event.has_exit()) {
        for (auto& [stream, text] : rest) {
          if (!text.empty()) {
            Line(id, std::exchange(text, {}));
          }
        }
        Line(id, "= " + ExitText(event.exit()));
      }
    }
    for (auto& [stream, text] : rest) {
      if (!text.empty()) {
        Line(id, text);
      }
    }
    if (broken_) {
      context.TryCancel();
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok() && !broken_) {
      std::lock_guard lock(mu_);
      Fail(status);
    }
  }

  static std::string ExitText(const shim::v1::Exit& exit) {
    std::string text = "ended";
    switch (exit.how_case()) {
      case shim::v1::Exit::kCode:
        text = fmt::format("exit {}", exit.code());
        break;
      case shim::v1::Exit::kSignal:
        text = fmt::format("signal {}", exit.signal());
        break;
      case shim::v1::Exit::kStartFailure:
        text = "not started: " + exit.start_failure().message();
        break;
      case shim::v1::Exit::kLost:
        text = "lost: " + exit.lost();
        break;
      case shim::v1::Exit::HOW_NOT_SET:
        break;
    }
    return text + (exit.timed_out() ? ", timed out" : "");
  }

  // What a sandbox printed is shown and never obeyed.
  void Line(const std::string& id, std::string text) {
    if (!text.empty() && text.back() == '\r') {
      text.pop_back();
    }
    std::lock_guard lock(mu_);
    if (!WriteAll(STDOUT_FILENO,
                  fmt::format("{:<12.12} | {}\n", Printable(id, 64), Printable(text, kMaxLine)))) {
      broken_ = true;
    }
  }

  const std::unique_ptr<o::Page::Stub> stub_;
  const bool json_;
  const std::string session_;
  const bool follow_;
  std::mutex mu_;
  std::atomic<bool> broken_{false};
};

int ShowLogs(const Globals& globals, const std::string& session, const std::string& command,
             bool follow) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  return Logs(o::Page::NewStub(*channel), globals.json, session, follow).Run(command);
}

// Everything that happens, from now on or with some of the past: lines of the record.
int Events(const Globals& globals, const std::string& session, uint32_t past) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  const auto stub = o::Record::NewStub(*channel);
  o::ReadRecordRequest request;
  request.set_session(session);
  request.set_limit(past);
  request.set_follow(true);
  if (past == 0) {
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    gmtime_r(&now, &utc);
    char time[32];
    std::strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &utc);
    request.set_since(time);
  }
  grpc::ClientContext context;
  const auto reader = stub->ReadRecord(&context, request);
  o::ReadRecordResponse response;
  while (reader->Read(&response)) {
    for (const o::RecordLine& line : response.lines()) {
      if (!WriteAll(STDOUT_FILENO, line.json() + "\n")) {
        context.TryCancel();
        return 1;
      }
    }
  }
  const grpc::Status status = reader->Finish();
  return status.ok() ? 0 : Fail(status);
}

}  // namespace

int TopAll(const Globals& globals) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  const auto pages = o::Page::NewStub(*channel);
  const auto operators = o::Operator::NewStub(*channel);
  const bool live = isatty(STDOUT_FILENO) != 0 && !globals.json;
  // A share of the processor takes two looks.
  for (int look = 0;; ++look) {
    o::ListUsageResponse usage;
    o::ListSessionsResponse sessions;
    if (int code = Ask(*pages, &o::Page::Stub::ListUsage, o::ListUsageRequest(), &usage);
        code != 0) {
      return code;
    }
    if (!live && look == 0) {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      continue;
    }
    if (globals.json) {
      return PrintJson(usage);
    }
    if (int code =
            Ask(*operators, &o::Operator::Stub::ListSessions, o::ListSessionsRequest(), &sessions);
        code != 0) {
      return code;
    }
    std::map<std::string, o::Usage> by_sandbox;
    for (const o::SandboxUsage& each : usage.sandboxes()) {
      by_sandbox[each.sandbox_id()] = each.usage();
    }
    std::vector<std::vector<std::string>> rows;
    for (const o::SessionDetails& each : sessions.sessions()) {
      const o::Usage& used = by_sandbox[each.session().sandbox_id()];
      rows.push_back(
          {each.session().session(),
           Word(gateway::v1::SessionState_Name(each.session().state()), "SESSION_STATE_"),
           fmt::format("{:.1f}%", used.cpu_percent()), Size(used.memory_bytes()),
           fmt::format("{}/{}", used.processes(), used.processes_limit()), Size(used.disk_bytes()),
           Ago(each.session().last_call_at())});
    }
    if (live) {
      WriteAll(STDOUT_FILENO, "\x1b[H\x1b[2J");
    }
    PrintTable({"SESSION", "STATE", "CPU", "MEMORY", "PROCESSES", "WORKSPACE", "LAST CALL"}, rows);
    if (!live) {
      return 0;
    }
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

void AddWatchCommands(CLI::App& app, const Globals& globals, int& code) {
  struct Options {
    std::string session;
    std::string command;
    uint32_t past = 0;
    bool follow = false;
    bool no_open = false;
    bool close = false;
  };
  const auto options = std::make_shared<Options>();

  CLI::App* const page =
      app.add_subcommand("page", "Print an address that logs a browser in, and open it");
  page->add_flag("--no-open", options->no_open, "Only print it");
  page->add_flag("--close", options->close, "Instead: log every browser out");
  page->callback(
      [&globals, &code, options] { code = Page(globals, options->no_open, options->close); });

  CLI::App* const logs = app.add_subcommand("logs", "Show what a session's commands have printed");
  logs->add_option("SESSION", options->session, "A session key or sandbox id")->required();
  logs->add_option("--command", options->command, "Only of this one, by its process id");
  logs->add_flag("-f,--follow", options->follow, "And what comes, until interrupted");
  logs->callback([&globals, &code, options] {
    code = ShowLogs(globals, options->session, options->command, options->follow);
  });

  CLI::App* const events =
      app.add_subcommand("events", "Tell everything that happens as JSON lines, until interrupted");
  events->add_option("--session", options->session, "Only of this session key");
  events->add_option("-n,--past", options->past, "Begin with so many records of the past");
  events->callback(
      [&globals, &code, options] { code = Events(globals, options->session, options->past); });
}

}  // namespace creel::cli
