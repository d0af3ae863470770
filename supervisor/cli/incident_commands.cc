#include "supervisor/cli/incident_commands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/channel.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "creel/operator/v1/incident.grpc.pb.h"
#include "creel/operator/v1/page.grpc.pb.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/cli/output.h"
#include "supervisor/cli/progress.h"
#include "supervisor/cli/verify_program.h"

namespace creel::cli {
namespace {

using operator_::v1::Incident;
using operator_::v1::Incidents;

void Print(const std::string& line) { WriteAll(STDOUT_FILENO, line + "\n"); }

// Connects, makes one call, and tells the error if there is one.
template <typename Request, typename Response>
int Call(const Globals& globals,
         grpc::Status (Incidents::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
         const Request& request, Response* response) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  const auto stub = Incidents::NewStub(*channel);
  grpc::ClientContext context;
  const grpc::Status status = ((*stub).*method)(&context, request, response);
  return status.ok() ? 0 : Fail(status);
}

std::string Millis(const google::protobuf::Duration& took) {
  return fmt::format("{:.1f} ms", static_cast<double>(took.seconds()) * 1000 +
                                      static_cast<double>(took.nanos()) / 1e6);
}

void PrintIncident(const Incident& incident) {
  Print(fmt::format("incident {} ({}), {}: {}", incident.id(), Printable(incident.scope(), 256),
                    incident.state(), Printable(incident.reason(), 1024)));
  Print(fmt::format("  gate shut after {}, all still after {}", Millis(incident.gate_took()),
                    Millis(incident.freeze_took())));
  if (!incident.gateway_stop().empty()) {
    Print("  gateway: " + Printable(incident.gateway_stop(), 1024));
  }
  for (const auto& sandbox : incident.sandboxes()) {
    Print(fmt::format("  {} {} {}", sandbox.sandbox_id(), Printable(sandbox.session(), 256),
                      sandbox.method().empty() ? "NOT FROZEN: " + Printable(sandbox.error(), 512)
                                               : "frozen (" + sandbox.method() + ")"));
  }
  for (const auto& bundle : incident.bundles()) {
    Print(fmt::format("  evidence: {} ({}, {} members, {})", Printable(bundle.path(), 512),
                      Size(bundle.bytes()), bundle.members(), Millis(bundle.took())));
    for (const std::string& what : bundle.left_out()) {
      Print("    not in it: " + Printable(what, 512));
    }
  }
}

struct OpenOptions {
  std::string session;
  std::string sender;
  bool all = false;
  std::string reason;
  bool without_capture = false;
  bool stop_gateway = false;
};

int Open(const Globals& globals, const OpenOptions& options, bool teardown) {
  operator_::v1::OpenIncidentRequest request;
  const int scopes =
      (options.session.empty() ? 0 : 1) + (options.sender.empty() ? 0 : 1) + (options.all ? 1 : 0);
  if (scopes != 1) {
    return Fail("say whom it is about: --session K, --sender S, or --all", 2);
  }
  if (!options.session.empty()) {
    request.set_session(options.session);
  } else if (!options.sender.empty()) {
    request.set_sender(options.sender);
  } else {
    request.set_all(true);
  }
  request.set_reason(options.reason);
  request.set_without_capture(options.without_capture);
  request.set_stop_gateway(options.stop_gateway);
  request.set_teardown(teardown);
  operator_::v1::OpenIncidentResponse response;
  if (const int code = Call(globals, &Incidents::Stub::OpenIncident, request, &response);
      code != 0) {
    return code;
  }
  // What could not be written down or collected is told; what does not stand still is a failure.
  bool done = !teardown || response.incident().state() == "torn_down";
  for (const auto& sandbox : response.incident().sandboxes()) {
    done = done && !sandbox.method().empty();
  }
  const int code = done ? 0 : 1;
  if (globals.json) {
    PrintJson(response);
    return code;
  }
  PrintIncident(response.incident());
  for (const std::string& problem : response.problems()) {
    static_cast<void>(Fail("warning: " + problem));
  }
  const std::string& id = response.incident().id();
  if (teardown) {
    Print(fmt::format("what happened: creel incident report {}", id));
  } else {
    Print(fmt::format("next: creel incident show {} | report {} | thaw {} | teardown {}", id, id,
                      id, id));
  }
  return code;
}

int List(const Globals& globals) {
  operator_::v1::ListIncidentsResponse response;
  if (const int code = Call(globals, &Incidents::Stub::ListIncidents,
                            operator_::v1::ListIncidentsRequest(), &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  if (response.incidents().empty()) {
    Print("there has been no incident");
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Incident& incident : response.incidents()) {
    rows.push_back({incident.id(), incident.state(), Ago(incident.opened_at()), incident.scope(),
                    std::to_string(incident.sandboxes_size()),
                    std::to_string(incident.bundles_size()), incident.reason()});
  }
  PrintTable({"INCIDENT", "STATE", "AGE", "ABOUT", "SANDBOXES", "BUNDLES", "REASON"}, rows);
  return 0;
}

int Show(const Globals& globals, const std::string& id) {
  operator_::v1::GetIncidentRequest request;
  request.set_id(id);
  operator_::v1::GetIncidentResponse response;
  if (const int code = Call(globals, &Incidents::Stub::GetIncident, request, &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  PrintIncident(response.incident());
  return 0;
}

// Shows on a terminal how far it has come.
std::unique_ptr<Progress> ShowCapture(const Globals& globals, const std::string& id) {
  auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return nullptr;
  }
  return std::make_unique<Progress>("collecting the evidence", [channel = *channel, id] {
    operator_::v1::GetCaptureRequest request;
    request.set_id(id);
    operator_::v1::GetCaptureResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
    const auto stub = operator_::v1::Page::NewStub(channel);
    return stub->GetCapture(&context, request, &response).ok() && response.running()
               ? Size(response.bytes_written())
               : std::string();
  });
}

int Capture(const Globals& globals, const std::string& id) {
  operator_::v1::CaptureIncidentRequest request;
  request.set_id(id);
  operator_::v1::CaptureIncidentResponse response;
  auto progress = ShowCapture(globals, id);
  if (const int code = Call(globals, &Incidents::Stub::CaptureIncident, request, &response);
      code != 0) {
    return code;
  }
  progress.reset();
  if (globals.json) {
    return PrintJson(response);
  }
  const auto& bundle = response.bundle();
  Print(fmt::format("{} ({}, {} members, {})\nSHA-256 {}", Printable(bundle.path(), 512),
                    Size(bundle.bytes()), bundle.members(), Millis(bundle.took()),
                    bundle.sha256()));
  for (const std::string& what : bundle.left_out()) {
    Print("not in it: " + Printable(what, 512));
  }
  return 0;
}

int Report(const Globals& globals, const std::string& id, bool html, const std::string& path) {
  operator_::v1::ReportIncidentRequest request;
  request.set_id(id);
  request.set_format(html ? operator_::v1::REPORT_FORMAT_HTML
                          : operator_::v1::REPORT_FORMAT_MARKDOWN);
  operator_::v1::ReportIncidentResponse response;
  if (const int code = Call(globals, &Incidents::Stub::ReportIncident, request, &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  if (path.empty()) {
    return WriteAll(STDOUT_FILENO, response.text()) ? 0 : 1;
  }
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid() || !WriteAll(file.get(), response.text())) {
    return Fail(ErrnoStatus(errno, fmt::format("write '{}'", path)));
  }
  return 0;
}

int Thaw(const Globals& globals, const std::string& id) {
  operator_::v1::ThawIncidentRequest request;
  request.set_id(id);
  operator_::v1::ThawIncidentResponse response;
  if (const int code = Call(globals, &Incidents::Stub::ThawIncident, request, &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Print("everything that it froze goes on, and calls get through again");
  return 0;
}

int Teardown(const Globals& globals, const std::string& id, bool without_evidence) {
  operator_::v1::TeardownIncidentRequest request;
  request.set_id(id);
  request.set_without_evidence(without_evidence);
  operator_::v1::TeardownIncidentResponse response;
  if (const int code = Call(globals, &Incidents::Stub::TeardownIncident, request, &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Print(fmt::format("{} sandboxes are gone with their workspaces; the evidence stays",
                    response.incident().sandboxes_size()));
  return 0;
}

}  // namespace

void AddIncidentCommands(CLI::App& app, const Globals& globals, int& code) {
  struct Options {
    OpenOptions open;
    OpenOptions panic;
    std::string id;
    std::string file;
    std::string key;
    bool html = false;
    bool without_evidence = false;
  };
  const auto options = std::make_shared<Options>();
  options->panic.all = true;
  options->panic.reason = "creel panic";
  CLI::App* const incident =
      app.add_subcommand("incident", "Freeze, keep the evidence, and end it");
  incident->require_subcommand(1);

  CLI::App* const open = incident->add_subcommand("open", "Stop what is going on");
  open->add_option("--session", options->open.session, "A session key or sandbox id");
  open->add_option("--sender", options->open.sender, "All that this sender reached, channel:id");
  open->add_flag("--all", options->open.all, "Everything");
  open->add_option("--reason", options->open.reason, "Why, for everybody who meets it")->required();
  open->add_flag("--without-capture", options->open.without_capture,
                 "Do not collect the evidence now");
  open->add_flag("--stop-gateway", options->open.stop_gateway, "Run incident.stop_gateway too");
  open->callback(
      [&globals, &code, options] { code = Open(globals, options->open, /*teardown=*/false); });

  incident->add_subcommand("list", "All incidents")->callback([&globals, &code] {
    code = List(globals);
  });
  const auto of_incident = [incident, options](const char* name, const char* help) {
    CLI::App* const command = incident->add_subcommand(name, help);
    command->add_option("INCIDENT", options->id, "Its number")->required();
    return command;
  };
  of_incident("show", "What one has frozen and kept")->callback([&globals, &code, options] {
    code = Show(globals, options->id);
  });
  of_incident("capture", "Collect the evidence once more")->callback([&globals, &code, options] {
    code = Capture(globals, options->id);
  });
  CLI::App* const report = of_incident("report", "Tell its story");
  report->add_flag("--html", options->html, "As one HTML page instead of Markdown");
  report->add_option("-o,--output", options->file, "Into this file");
  report->callback([&globals, &code, options] {
    code = Report(globals, options->id, options->html, options->file);
  });
  of_incident("thaw", "Let everything go on")->callback([&globals, &code, options] {
    code = Thaw(globals, options->id);
  });
  CLI::App* const teardown = of_incident("teardown", "Remove its sandboxes with all they hold");
  teardown->add_flag("--without-evidence", options->without_evidence, "Although none was kept");
  teardown->callback([&globals, &code, options] {
    code = Teardown(globals, options->id, options->without_evidence);
  });
  CLI::App* const verify = incident->add_subcommand("verify", "Check a bundle, on any machine");
  verify->add_option("BUNDLE", options->file, "The bundle")->required();
  verify->add_option("--key", options->key, "The public key (PEM) that creel audit key prints")
      ->required();
  verify->callback([&code, options] {
    code = BecomeVerify({"bundle", options->file, "--key", options->key});
  });

  CLI::App* const panic = app.add_subcommand(
      "panic", "Stop everything, keep the evidence, and take all sandboxes down");
  panic->add_option("--reason", options->panic.reason, "Why");
  panic->add_flag("--stop-gateway", options->panic.stop_gateway, "Run incident.stop_gateway too");
  panic->callback(
      [&globals, &code, options] { code = Open(globals, options->panic, /*teardown=*/true); });
}

}  // namespace creel::cli
