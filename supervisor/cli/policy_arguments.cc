#include "supervisor/cli/policy_arguments.h"

#include <memory>
#include <string>

#include "supervisor/cli/policy_commands.h"

namespace creel::cli {
namespace {

// What the arguments are read into; the callbacks share it.
struct Arguments {
  std::string whom;
  std::string level;
  std::string id;
  std::string file;
  std::string session;
  bool all = false;
  bool origin = false;
  ReadOnlyTarget target;
  ExplainSettings explain;
};

}  // namespace

void AddPolicyCommands(CLI::App& app, const Globals& globals, int& code) {
  const auto a = std::make_shared<Arguments>();
  const auto group = [&](const char* name, const char* help) {
    CLI::App* const command = app.add_subcommand(name, help);
    command->require_subcommand(1);
    command->fallthrough();
    return command;
  };

  CLI::App* const pairing = group("pairing", "Let unknown senders in, or not");
  pairing->add_subcommand("list", "Who waits, and who was let in")->callback([&globals, &code] {
    code = PairingList(globals);
  });
  CLI::App* const approve = pairing->add_subcommand("approve", "Let a sender in");
  approve->add_option("CODE", a->whom, "The code, or channel:id of one who waits")->required();
  approve->add_option("--level", a->level, "Default: friend");
  approve->callback([&globals, &code, a] { code = PairingApprove(globals, a->whom, a->level); });
  CLI::App* const deny = pairing->add_subcommand("deny", "Turn a sender down, or revoke one");
  deny->add_option("CODE", a->whom, "The code, or channel:id")->required();
  deny->callback([&globals, &code, a] { code = PairingDeny(globals, a->whom); });

  CLI::App* const approvals = group("approvals", "Tool calls that wait for you");
  CLI::App* const list = approvals->add_subcommand("list", "What waits");
  list->add_flag("--all", a->all, "What was answered in the last day too");
  list->callback([&globals, &code, a] { code = ApprovalsList(globals, a->all); });
  for (const bool allow : {true, false}) {
    CLI::App* const answer = approvals->add_subcommand(allow ? "allow" : "deny",
                                                       allow ? "Let it run, once" : "Refuse it");
    answer->add_option("ID", a->id, "As the list shows it")->required();
    answer->callback(
        [&globals, &code, a, allow] { code = ApprovalsAnswer(globals, a->id, allow); });
  }

  CLI::App* const read_only = group("read-only", "No shell, no writing, no messages");
  for (const bool on : {true, false}) {
    CLI::App* const set = read_only->add_subcommand(
        on ? "on" : "off", on ? "Switch it on; what runs is ended" : "Switch it off");
    set->add_option("--level", a->target.level, "For a level and those below");
    set->add_option("--session", a->target.session, "For one session");
    if (on) {
      set->add_option("--reason", a->target.reason, "For those who meet it");
    }
    set->callback([&globals, &code, a, on] { code = ReadOnlySet(globals, a->target, on); });
  }
  read_only->add_subcommand("status", "Whether it is on, for whom")->callback([&globals, &code] {
    code = ReadOnlyStatus(globals);
  });

  CLI::App* const policy = group("policy", "The rules in force");
  CLI::App* const check = policy->add_subcommand("check", "Check a file without using it");
  check->add_option("FILE", a->file, "A configuration, - for stdin")->required();
  check->callback([&globals, &code, a] { code = PolicyCheck(globals, a->file); });
  CLI::App* const show = policy->add_subcommand("show", "What is not at its default");
  show->add_flag("--origin", a->origin, "With file and line, and what was not imported");
  show->callback([&globals, &code, a] { code = PolicyShow(globals, a->origin); });
  policy->add_subcommand("reload", "Read the configuration again")->callback([&globals, &code] {
    code = PolicyReload(globals);
  });

  CLI::App* const explain =
      app.add_subcommand("explain", "What the policy says, and by which rule");
  explain->add_option("--session", a->explain.session, "The gateway's session key");
  explain->add_option("--sender", a->explain.sender, "Who asks, channel:id");
  explain->add_option("--tool", a->explain.tool, "May this tool run?");
  explain->add_option("--place", a->explain.place, "Where the gateway would run it: host, sandbox");
  explain->add_option("--message", a->explain.message, "May this message reach the model?");
  explain->add_option("--group", a->explain.group, "The message came in this group");
  explain->add_flag("--mentioned", a->explain.mentioned, "The channel says it is a mention");
  explain->add_flag("--command", a->explain.command, "The message is a command to the gateway");
  explain->add_option("--reply", a->explain.reply, "May this file's text leave? - for stdin");
  explain->add_flag("--others-read", a->explain.others_read, "Others will read the reply too");
  explain->callback([&globals, &code, a] { code = Explain(globals, a->explain); });

  CLI::App* const prompt = app.add_subcommand("prompt", "The security section for a system prompt");
  prompt->add_option("--level", a->level, "For this trust level; default: the lowest");
  prompt->callback([&globals, &code, a] { code = Prompt(globals, a->level); });

  CLI::App* const trust = group("trust", "Trust levels of sessions");
  CLI::App* const reset =
      trust->add_subcommand("reset", "Forget who has reached a session that runs on the host");
  reset->add_option("SESSION", a->session, "The gateway's session key")->required();
  reset->callback([&globals, &code, a] { code = TrustReset(globals, a->session); });
}

}  // namespace creel::cli
