#include "supervisor/cli/secrets_commands.h"

#include <fmt/format.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "creel/operator/v1/secrets.grpc.pb.h"
#include "supervisor/base/escape.h"
#include "supervisor/cli/output.h"

namespace creel::cli {
namespace {

using operator_::v1::Secrets;

void Say(const std::string& line) { WriteAll(STDOUT_FILENO, line + "\n"); }

template <typename Request, typename Response>
int Call(const Globals& globals,
         grpc::Status (Secrets::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
         const Request& request, Response* response) {
  const auto channel = OperatorChannel(globals);
  if (!channel.ok()) {
    return Fail(channel.status());
  }
  const auto stub = Secrets::NewStub(*channel);
  grpc::ClientContext context;
  const grpc::Status status = ((*stub).*method)(&context, request, response);
  return status.ok() ? 0 : Fail(status);
}

int List(const Globals& globals) {
  operator_::v1::ListSecretsResponse response;
  if (const int code = Call(globals, &Secrets::Stub::ListSecrets,
                            operator_::v1::ListSecretsRequest(), &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  if (response.secrets().empty()) {
    Say("no service of egress.services has a credential");
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& each : response.secrets()) {
    rows.push_back({each.name(), each.kind(), each.source(),
                    each.last_session().empty() ? "-" : each.last_session(),
                    each.last_used_at().empty() ? "-" : each.last_used_at().substr(0, 19) + "Z",
                    std::to_string(each.uses()), each.revoked() ? "revoked" : "in use"});
  }
  PrintTable({"NAME", "KIND", "FROM", "LAST USED BY", "AT", "USES", "STATE"}, rows);
  return 0;
}

int Revoke(const Globals& globals, const std::string& name) {
  operator_::v1::RevokeSecretRequest request;
  request.set_name(name);
  operator_::v1::RevokeSecretResponse response;
  if (const int code = Call(globals, &Secrets::Stub::RevokeSecret, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Say(
      fmt::format("revoked: no request gets it any more. It is still valid where it comes from: "
                  "make a new one there, put it in the old one's place, then: creel secrets "
                  "restore {}",
                  Printable(name, 128)));
  return 0;
}

int Restore(const Globals& globals, const std::string& name) {
  operator_::v1::RestoreSecretRequest request;
  request.set_name(name);
  operator_::v1::RestoreSecretResponse response;
  if (const int code = Call(globals, &Secrets::Stub::RestoreSecret, request, &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Say("restored; it is read anew from where it comes from");
  return 0;
}

}  // namespace

void AddSecretsCommands(CLI::App& app, const Globals& globals, int& code) {
  CLI::App* const secrets =
      app.add_subcommand("secrets", "The credentials that Creel adds to sandboxes' requests");
  secrets->require_subcommand(1);
  secrets->fallthrough();
  secrets->add_subcommand("list", "Where each comes from and who used it last; never its value")
      ->callback([&globals, &code] { code = List(globals); });
  // Lives as long as the commands, which are lambdas.
  const auto name = std::make_shared<std::string>();
  const auto of_secret = [&](const char* command, const char* help) {
    CLI::App* const added = secrets->add_subcommand(command, help);
    added->add_option("NAME", *name, "The service's name")->required();
    return added;
  };
  of_secret("revoke", "Stop adding one, at once and over restarts")
      ->callback([&globals, &code, name] { code = Revoke(globals, *name); });
  of_secret("restore", "Add it again, once there is a new one")->callback([&globals, &code, name] {
    code = Restore(globals, *name);
  });
}

}  // namespace creel::cli
