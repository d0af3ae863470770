#include "supervisor/cli/session_commands.h"

#include <fmt/format.h>
#include <grpcpp/channel.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string_view>

#include "supervisor/base/escape.h"
#include "supervisor/cli/operator_call.h"
#include "supervisor/cli/output.h"
#include "supervisor/cli/read_text.h"

namespace creel::cli {
namespace {

using operator_::v1::Operator;

std::string StateOf(const gateway::v1::Session& session) {
  return Word(gateway::v1::SessionState_Name(session.state()), "SESSION_STATE_");
}

std::string MemoryOf(const operator_::v1::Usage& usage) {
  return fmt::format("{} / {}", Size(usage.memory_bytes()), Size(usage.memory_limit_bytes()));
}

}  // namespace

int Open(const Globals& globals, const OpenSettings& settings) {
  operator_::v1::OpenSessionRequest request;
  gateway::v1::OpenSessionRequest& open = *request.mutable_open();
  open.mutable_context()->set_session(settings.session);
  open.mutable_context()->set_sender(settings.sender);
  std::string access = settings.access;
  if (!settings.workspace.empty()) {
    std::error_code ignored;
    open.set_workspace(std::filesystem::absolute(settings.workspace, ignored).string());
    access = access.empty() ? "rw" : access;
  }
  static const std::map<std::string, gateway::v1::WorkspaceAccess> kAccess{
      {"", gateway::v1::WORKSPACE_ACCESS_UNSPECIFIED},
      {"none", gateway::v1::WORKSPACE_ACCESS_NONE},
      {"ro", gateway::v1::WORKSPACE_ACCESS_READ_ONLY},
      {"rw", gateway::v1::WORKSPACE_ACCESS_READ_WRITE}};
  const auto known = kAccess.find(access);
  if (known == kAccess.end()) {
    return Fail(fmt::format("'{}' is no access; write none, ro or rw", access), 2);
  }
  open.set_workspace_access(known->second);
  for (const std::string& variable : settings.env) {
    const size_t equals = variable.find('=');
    if (equals == std::string::npos || equals == 0) {
      return Fail(fmt::format("'{}' is not a variable; write NAME=VALUE", variable), 2);
    }
    (*open.mutable_env())[variable.substr(0, equals)] = variable.substr(equals + 1);
  }
  operator_::v1::OpenSessionResponse response;
  if (const int code = Call(globals, &Operator::Stub::OpenSession, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Say(fmt::format("{} {} as sandbox {}", response.created() ? "opened" : "found",
                  Printable(response.session().session(), 512), response.session().sandbox_id()));
  return 0;
}

int Close(const Globals& globals, const std::string& session, bool force) {
  operator_::v1::CloseSessionRequest request;
  request.set_session(session);
  request.set_force(force);
  return Act(globals, &Operator::Stub::CloseSession, request, "closed");
}

int Freeze(const Globals& globals, const std::string& session, const std::string& reason) {
  operator_::v1::FreezeSessionRequest request;
  request.set_session(session);
  request.set_reason(reason);
  operator_::v1::FreezeSessionResponse response;
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  grpc::ClientContext context;
  const grpc::Status status =
      Operator::NewStub(*channel)->FreezeSession(&context, request, &response);
  if (!status.ok()) {
    return Fail(status);
  }
  for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
    if (key == "creel-warning-bin") {
      static_cast<void>(Fail(fmt::format("warning: it stands still, but {}",
                                         std::string_view(value.data(), value.size()))));
    }
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Say(fmt::format("frozen ({}); let it go on with: creel thaw", response.method()));
  return 0;
}

int Thaw(const Globals& globals, const std::string& session) {
  operator_::v1::ThawSessionRequest request;
  request.set_session(session);
  return Act(globals, &Operator::Stub::ThawSession, request, "thawed");
}

int List(const Globals& globals, bool usage) {
  operator_::v1::ListSessionsRequest request;
  request.set_with_usage(usage);
  operator_::v1::ListSessionsResponse response;
  if (const int code = Call(globals, &Operator::Stub::ListSessions, request, &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  if (response.sessions().empty()) {
    Say("no session is open; open one with: creel open SESSION");
    return 0;
  }
  std::vector<std::string> heading{"SESSION", "SANDBOX",   "STATE",   "SENDER",
                                   "AGE",     "LAST CALL", "COMMANDS"};
  if (usage) {
    heading.insert(heading.end(), {"CPU", "MEMORY"});
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& each : response.sessions()) {
    const gateway::v1::Session& session = each.session();
    rows.push_back({session.session(), session.sandbox_id(), StateOf(session),
                    session.sender().empty() ? "-" : session.sender(), Ago(session.opened_at()),
                    Ago(session.last_call_at()), std::to_string(session.processes())});
    if (usage) {
      rows.back().push_back(fmt::format("{:.1f}%", each.usage().cpu_percent()));
      rows.back().push_back(MemoryOf(each.usage()));
    }
  }
  PrintTable(heading, rows);
  return 0;
}

int Inspect(const Globals& globals, const std::string& session) {
  operator_::v1::InspectSessionRequest request;
  request.set_session(session);
  operator_::v1::InspectSessionResponse response;
  if (const int code = Call(globals, &Operator::Stub::InspectSession, request, &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  const gateway::v1::Session& told = response.details().session();
  std::vector<std::vector<std::string>> rows{
      {"session", told.session()},
      {"sandbox", told.sandbox_id()},
      {"state", StateOf(told) + (told.reason().empty() ? "" : ": " + told.reason())},
      {"sender", told.sender().empty() ? "-" : told.sender()},
      {"trust level", told.trust_level()},
      {"opened", Ago(told.opened_at()) + " ago"},
      {"last call", Ago(told.last_call_at()) + " ago"},
      {"image", told.image()},
      {"runtime", told.runtime().empty() ? "the engine's default" : told.runtime()},
      {"container", told.container_id().substr(0, 12)},
      {"workspace", (told.workspace().empty() ? "Creel's own" : told.workspace()) + " at " +
                        told.workdir() + ", " + response.workspace_bound()},
      {"tool uid:gid", fmt::format("{}:{}", response.tool_uid(), response.tool_gid())},
      {"shim", response.shim_version()},
      {"memory", MemoryOf(response.details().usage())},
      {"spec", response.spec_hash().substr(0, 16)}};
  const std::map<std::string, std::string> limits(response.limits().begin(),
                                                  response.limits().end());
  for (const auto& [name, value] : limits) {
    rows.push_back({"limit " + name, value});
  }
  for (const auto& mount : response.mounts()) {
    rows.push_back({"mount " + mount.target(), (mount.source().empty() ? "tmpfs" : mount.source()) +
                                                   (mount.read_only() ? " (read-only)" : "")});
  }
  for (const auto& peer : response.dropped_peers()) {
    rows.push_back({"dropped peer", Ago(peer.at()) + " ago: " + peer.reason()});
  }
  PrintTable({"WHAT", "VALUE"}, rows);
  return 0;
}

int Top(const Globals& globals, const std::string& session) {
  const auto stub = ConnectOperator(globals);
  if (!stub.ok()) {
    return Fail(stub.status());
  }
  const bool live = isatty(STDOUT_FILENO) != 0 && !globals.json;
  grpc::ClientContext context;
  operator_::v1::WatchUsageRequest request;
  request.set_session(session);
  const auto reader = (*stub)->WatchUsage(&context, request);
  operator_::v1::WatchUsageResponse response;
  while (reader->Read(&response)) {
    if (globals.json) {
      PrintJson(response);
    } else {
      if (live) {
        WriteAll(STDOUT_FILENO, "\x1b[H\x1b[2J");
      }
      const operator_::v1::Usage& usage = response.usage();
      Say(fmt::format("cpu {:.1f}%  memory {}  processes {}/{}  workspace {}", usage.cpu_percent(),
                      MemoryOf(usage), usage.processes(), usage.processes_limit(),
                      Size(usage.disk_bytes())));
      std::vector<std::vector<std::string>> rows;
      for (const auto& line : response.processes()) {
        rows.push_back({std::to_string(line.pid()), std::to_string(line.uid()), line.command()});
      }
      PrintTable({"PID", "UID", "COMMAND"}, rows);
    }
    if (!live) {
      context.TryCancel();
      return 0;
    }
  }
  const grpc::Status status = reader->Finish();
  return status.ok() ? 0 : Fail(status);
}

int Doctor(const Globals& globals, bool fix, const std::string& gateway_config) {
  operator_::v1::DiagnoseRequest request;
  request.set_fix(fix);
  if (!gateway_config.empty()) {
    const std::optional<std::string> text = ReadText(gateway_config);
    if (!text) {
      return 1;
    }
    if (text->empty()) {
      return Fail(fmt::format("'{}' is empty", Printable(gateway_config, 512)));
    }
    request.set_gateway_config(*text);
    request.set_gateway_config_name(gateway_config.substr(0, 512));
  }
  operator_::v1::DiagnoseResponse response;
  if (const int code = Call(globals, &Operator::Stub::Diagnose, request, &response); code != 0) {
    return code;
  }
  bool severe = false;
  for (const auto& finding : response.findings()) {
    severe = severe || (finding.severity() == operator_::v1::SEVERITY_SEVERE && !finding.fixed());
  }
  if (globals.json) {
    PrintJson(response);
    return severe ? 1 : 0;
  }
  for (const auto& finding : response.findings()) {
    Say(fmt::format("{:<8} {:<24} {}",
                    finding.fixed()
                        ? "fixed"
                        : Word(operator_::v1::Severity_Name(finding.severity()), "SEVERITY_"),
                    Printable(finding.id(), 64), Printable(finding.title(), 300)));
    if (finding.severity() != operator_::v1::SEVERITY_OK) {
      for (const std::string& more : {finding.why(), finding.fix()}) {
        if (!more.empty()) {
          Say("         " + Printable(more, 1000));
        }
      }
    }
  }
  return severe ? 1 : 0;
}

int Version(const Globals& globals) {
  operator_::v1::GetInfoResponse response;
  const auto stub = ConnectOperator(globals);
  if (stub.ok()) {
    grpc::ClientContext context;
    static_cast<void>((*stub)->GetInfo(&context, {}, &response));
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Say("creel " CREEL_VERSION);
  Say(response.version().empty()
          ? "creeld: does not answer"
          : fmt::format("creeld {} (engine {}, API {})", response.version(),
                        response.engine_version(), response.engine_api_version()));
  return 0;
}

}  // namespace creel::cli
