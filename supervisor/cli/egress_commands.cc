#include "supervisor/cli/egress_commands.h"

#include <fmt/format.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "creel/operator/v1/egress.grpc.pb.h"
#include "supervisor/base/escape.h"
#include "supervisor/cli/output.h"

namespace creel::cli {
namespace {

using operator_::v1::Egress;

struct Question {
  std::string session;
  std::string level;
  std::string method;
  std::string url;
};

void Say(const std::string& line) { WriteAll(STDOUT_FILENO, line + "\n"); }

template <typename Request, typename Response>
int Call(const Globals& globals,
         grpc::Status (Egress::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
         const Request& request, Response* response) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  const auto stub = Egress::NewStub(*channel);
  grpc::ClientContext context;
  const grpc::Status status = ((*stub).*method)(&context, request, response);
  return status.ok() ? 0 : Fail(status);
}

void Fill(const Question& question, operator_::v1::ExplainEgressRequest& request) {
  request.set_session(question.session);
  request.set_level(question.level);
  request.set_method(question.method);
  request.set_url(question.url);
}

int Log(const Globals& globals, const std::string& session, uint32_t limit) {
  operator_::v1::ListEgressRequest request;
  request.set_session(session);
  request.set_limit(limit);
  operator_::v1::ListEgressResponse response;
  if (const int code = Call(globals, &Egress::Stub::ListEgress, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& each : response.records()) {
    const std::string verdict = !each.ended() ? (each.allowed() ? "allowed" : "refused")
                                              : fmt::format("ended {}", each.status());
    rows.push_back({fmt::format("{}", each.number()), Ago(each.at()), each.sandbox_id(),
                    each.level(), verdict, each.method() + " " + each.target() + each.path(),
                    each.ended() ? Size(each.bytes_up()) + " / " + Size(each.bytes_down()) : "",
                    each.rule() + (each.reason().empty() ? "" : ": " + each.reason())});
  }
  PrintTable({"NO", "AGO", "SANDBOX", "LEVEL", "VERDICT", "WHAT", "UP / DOWN", "RULE"}, rows);
  return 0;
}

int Explain(const Globals& globals, const Question& question) {
  operator_::v1::ExplainEgressRequest request;
  Fill(question, request);
  operator_::v1::ExplainEgressResponse response;
  if (const int code = Call(globals, &Egress::Stub::ExplainEgress, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Say(fmt::format("{} for level '{}', by '{}'{}", response.allowed() ? "allowed" : "refused",
                  Printable(response.level(), 64), Printable(response.rule(), 256),
                  response.reason().empty() ? "" : ": " + Printable(response.reason(), 1024)));
  if (!response.add().empty()) {
    Say("to allow it, add:\n\n  " + Printable(response.add(), 1024));
  }
  return 0;
}

int Test(const Globals& globals, const Question& question) {
  operator_::v1::TryEgressRequest request;
  Fill(question, *request.mutable_request());
  operator_::v1::TryEgressResponse response;
  if (const int code = Call(globals, &Egress::Stub::TryEgress, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  std::string line;
  for (const char c : response.reply() + "\n") {
    if (c == '\n') {
      Say(Printable(line, 4096));
      line.clear();
    } else if (c != '\r') {
      line.push_back(c);
    }
  }
  const std::string& reply = response.reply();
  const bool good = reply.size() > 9 && (reply[9] == '2' || reply[9] == '3');
  return good ? 0 : 1;
}

int Credentials(const Globals& globals) {
  operator_::v1::ListCredentialsResponse response;
  if (const int code = Call(globals, &Egress::Stub::ListCredentials,
                            operator_::v1::ListCredentialsRequest(), &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& each : response.credentials()) {
    rows.push_back({each.service(), each.kind(), each.source(), each.revoked() ? "revoked" : ""});
  }
  PrintTable({"SERVICE", "KIND", "SOURCE", ""}, rows);
  return 0;
}

int Revoke(const Globals& globals, const std::string& service) {
  operator_::v1::RevokeCredentialRequest request;
  request.set_service(service);
  operator_::v1::RevokeCredentialResponse response;
  const int code = Call(globals, &Egress::Stub::RevokeCredential, request, &response);
  if (code == 0) {
    Say("revoked; requests to the service are refused until: creel egress restore");
  }
  return code;
}

int Restore(const Globals& globals, const std::string& service) {
  operator_::v1::RestoreCredentialRequest request;
  request.set_service(service);
  operator_::v1::RestoreCredentialResponse response;
  const int code = Call(globals, &Egress::Stub::RestoreCredential, request, &response);
  if (code == 0) {
    Say("restored; it is fetched anew");
  }
  return code;
}

}  // namespace

void AddEgressCommands(CLI::App& app, const Globals& globals, int& code) {
  CLI::App* const egress = app.add_subcommand("egress", "The sandboxes' way out");
  egress->require_subcommand(1);
  egress->fallthrough();

  // What the options are read into lives as long as the commands, which are lambdas.
  auto session = std::make_shared<std::string>();
  auto limit = std::make_shared<uint32_t>(100);
  CLI::App* const log = egress->add_subcommand("log", "Show what was asked for lately");
  log->add_option("SESSION", *session, "A session key or sandbox id; without it, all");
  log->add_option("-n,--lines", *limit, "The last so many lines")->check(CLI::Range(1, 2000));
  log->callback([&globals, &code, session, limit] { code = Log(globals, *session, *limit); });

  auto question = std::make_shared<Question>();
  const auto asks = [&](const char* name, const char* help) {
    CLI::App* const command = egress->add_subcommand(name, help);
    command->add_option("URL", question->url, "http://…, https://… or host:port")->required();
    command->add_option("--session", question->session, "Whose sandbox; a key or an id");
    command->add_option("--level", question->level, "A trust level, instead of the sandbox's");
    command->add_option("-X,--method", question->method, "GET, if none is given");
    return command;
  };
  asks("explain", "Ask what the rules say to a request")->callback([&globals, &code, question] {
    code = Explain(globals, *question);
  });
  asks("test", "Send a request as if from a sandbox")->callback([&globals, &code, question] {
    code = Test(globals, *question);
  });

  auto service = std::make_shared<std::string>();
  egress->add_subcommand("credentials", "List what services add to requests")
      ->callback([&globals, &code] { code = Credentials(globals); });
  CLI::App* const revoke = egress->add_subcommand("revoke", "Stop adding a service's credential");
  revoke->add_option("SERVICE", *service, "Its name")->required();
  revoke->callback([&globals, &code, service] { code = Revoke(globals, *service); });
  CLI::App* const restore = egress->add_subcommand("restore", "Add it again, fetched anew");
  restore->add_option("SERVICE", *service, "Its name")->required();
  restore->callback([&globals, &code, service] { code = Restore(globals, *service); });
}

}  // namespace creel::cli
