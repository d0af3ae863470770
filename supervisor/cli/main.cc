// creel: what the operator types. It speaks to creeld and holds no state.
#include <absl/synchronization/mutex.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

#include "supervisor/cli/connection.h"
#include "supervisor/cli/copy_command.h"
#include "supervisor/cli/egress_commands.h"
#include "supervisor/cli/exec_command.h"
#include "supervisor/cli/incident_commands.h"
#include "supervisor/cli/manual_text.h"
#include "supervisor/cli/mcp/server.h"
#include "supervisor/cli/output.h"
#include "supervisor/cli/policy_arguments.h"
#include "supervisor/cli/record_commands.h"
#include "supervisor/cli/reference.h"
#include "supervisor/cli/secrets_commands.h"
#include "supervisor/cli/session_commands.h"
#include "supervisor/cli/watch_commands.h"

namespace creel::cli {
namespace {

int Main(int argc, char** argv) {
  Globals globals = DefaultGlobals();
  int code = 0;
  CLI::App app{"Look into the sandboxes of a gateway, and take care of them"};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--socket", globals.socket, "The gateway's door");
  app.add_option("--operator-socket", globals.operator_socket, "The operator's door");
  app.add_flag("--json", globals.json, "Answer as JSON");

  std::string session;
  OpenSettings open;
  CLI::App* const open_command = app.add_subcommand("open", "Open a session's sandbox");
  open_command->add_option("SESSION", open.session, "The gateway's session key")->required();
  open_command->add_option("--sender", open.sender, "Who asks, channel:id");
  open_command->add_option("--workspace", open.workspace, "A folder of the host to work in");
  open_command->add_option("--access", open.access, "To that folder: none, ro or rw (default)");
  open_command->add_option("-e,--env", open.env, "NAME=VALUE for its tools")
      ->allow_extra_args(false);
  open_command->callback([&] { code = Open(globals, open); });

  ExecOptions exec;
  CLI::App* const exec_command = app.add_subcommand("exec", "Run a command in a sandbox");
  exec_command->add_option("SESSION", exec.session, "The gateway's session key")->required();
  exec_command->add_option("--sender", exec.sender, "Who asks, channel:id");
  exec_command->add_option("-w,--workdir", exec.cwd, "Where to run it");
  exec_command->add_option("-e,--env", exec.env, "NAME=VALUE, or NAME to pass on your own")
      ->allow_extra_args(false);
  exec_command->add_option("--env-file", exec.env_file,
                           "A file of NAME=VALUE lines, or of NUL-ended NAME=VALUE");
  exec_command->add_option("--env-fd", exec.env_fd, "The same from an open descriptor");
  exec_command->add_option("--timeout", exec.timeout, "Stop it after this long, such as 30s");
  exec_command->add_option("--process-id", exec.process_id, "The name it has among its session's");
  exec_command->add_option("--tool-call-id", exec.tool_call_id, "The gateway's id of the call");
  exec_command->add_option("--pty", exec.pty, "ROWSxCOLUMNS: a terminal, though we have none");
  exec_command->add_flag("-i,--interactive", exec.interactive, "Pass on stdin");
  exec_command->add_flag("-t,--tty", exec.terminal, "Give it a terminal");
  exec_command->footer("The command follows --: creel exec SESSION -- COMMAND...");
  exec_command->callback([&] {
    code = exec.command.empty()
               ? Fail("no command is given; write: creel exec SESSION -- COMMAND...", 2)
               : Exec(globals, exec);
  });

  CopyOptions copy;
  CLI::App* const copy_command = app.add_subcommand("cp", "Copy files; SESSION:/path on one side");
  copy_command->add_option("SOURCE", copy.source, "A path, or - for a tar stream on stdin")
      ->required();
  copy_command->add_option("DESTINATION", copy.destination, "A path, or - for a tar stream")
      ->required();
  copy_command->add_option("--max-size", copy.max_bytes, "Bytes that a copy to the host may have")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
  copy_command->callback([&] { code = Copy(globals, copy); });

  mcp::ServerOptions served;
  CLI::App* const mcp_command =
      app.add_subcommand("mcp", "Serve a session's tools on stdin and stdout, for an MCP client");
  mcp_command->add_option("--session", served.session, "The session key")->required();
  mcp_command->add_option("--sender", served.sender, "Who asks, channel:id");
  mcp_command->callback([&] { code = mcp::Serve(globals, served); });

  bool usage = false;
  CLI::App* const list = app.add_subcommand("ps", "List open sessions");
  list->add_flag("--usage", usage, "With processor and memory");
  list->callback([&] { code = List(globals, usage); });

  const auto of_session = [&](const char* name, const char* help) {
    CLI::App* const command = app.add_subcommand(name, help);
    command->add_option("SESSION", session, "A session key or sandbox id")->required();
    return command;
  };
  of_session("inspect", "Show all of one sandbox")->callback([&] {
    code = Inspect(globals, session);
  });
  CLI::App* const top = app.add_subcommand("top", "Show what one sandbox uses, or all");
  top->add_option("SESSION", session, "A session key or sandbox id; without it all");
  top->callback([&] { code = session.empty() ? TopAll(globals) : Top(globals, session); });
  bool force = false;
  CLI::App* const close = of_session("close", "End a session and remove its sandbox");
  close->add_flag("--force", force, "Even if it is frozen; its evidence is lost");
  close->callback([&] { code = Close(globals, session, force); });
  std::string reason = "frozen by the operator";
  CLI::App* const freeze = of_session("freeze", "Stop a sandbox where it stands");
  freeze->add_option("--reason", reason, "For those who meet the refusal");
  freeze->callback([&] { code = Freeze(globals, session, reason); });
  of_session("thaw", "Let a frozen sandbox go on")->callback([&] {
    code = Thaw(globals, session);
  });

  AddEgressCommands(app, globals, code);
  AddRecordCommands(app, globals, code);
  AddIncidentCommands(app, globals, code);
  AddSecretsCommands(app, globals, code);
  AddWatchCommands(app, globals, code);

  bool fix = false;
  std::string gateway_config;
  CLI::App* const doctor =
      app.add_subcommand("doctor", "Look for what is weaker than it should be");
  CLI::Option* const fixing =
      doctor->add_flag("--fix", fix, "Put right what nobody would miss, such as modes of files");
  doctor
      ->add_option("--gateway-config", gateway_config,
                   "Look at this file, OpenClaw's own configuration, instead (-: stdin)")
      ->excludes(fixing);
  doctor->callback([&] { code = Doctor(globals, fix, gateway_config); });
  AddPolicyCommands(app, globals, code);
  app.add_subcommand("version", "Versions of creel, creeld and the engine")->callback([&] {
    code = Version(globals);
  });

  if (const auto printed = PrintReference(app, {.section = 1, .more = kCreelManual}, argc, argv)) {
    return *printed;
  }
  // What follows `--` is the command's and is taken as it is: CLI11 would read `[a,b]` as a list.
  int own = 1;
  while (own < argc && std::string_view(argv[own]) != "--") {
    ++own;
  }
  for (int i = own + 1; i < argc; ++i) {
    exec.command.emplace_back(argv[i]);
  }
  try {
    app.parse(own, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    const bool unquoted = exec_command->parsed() && own == argc;
    return Fail(std::string(error.what()) + (unquoted ? "; put -- before the command" : "") +
                    "; see creel --help",
                2);
  }
  return code;
}

}  // namespace
}  // namespace creel::cli

int main(int argc, char** argv) {
  // gRPC starts faster without what a command does not need.
  setenv("GRPC_ENABLE_FORK_SUPPORT", "0", 1);
  setenv("GRPC_DNS_RESOLVER", "native", 1);
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const int code = creel::cli::Main(argc, argv);
  std::cout.flush();
  // Taking gRPC down costs more than most commands.
  _exit(code);
}
