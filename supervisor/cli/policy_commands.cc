#include "supervisor/cli/policy_commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "supervisor/base/escape.h"
#include "supervisor/cli/operator_call.h"
#include "supervisor/cli/output.h"
#include "supervisor/cli/read_text.h"

namespace creel::cli {
namespace {

namespace o = operator_::v1;
using o::Operator;

std::string Minus(const std::string& text) { return text.empty() ? "-" : text; }

// A code has no colon, a sender has one or is a number.
bool IsSender(const std::string& whom) {
  return whom.find(':') != std::string::npos || whom.starts_with('+');
}

gateway::v1::Sender SenderOf(const std::string& text) {
  gateway::v1::Sender sender;
  const size_t colon = text.find(':');
  if (colon != std::string::npos && colon > 0 && !text.starts_with('+')) {
    sender.set_channel(text.substr(0, colon));
    sender.set_id(text.substr(colon + 1));
  } else {
    sender.set_id(text);
  }
  return sender;
}

int ShowSwitches(const google::protobuf::RepeatedPtrField<gateway::v1::ReadOnlySwitch>& switches) {
  if (switches.empty()) {
    Say("read-only mode is off");
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const gateway::v1::ReadOnlySwitch& each : switches) {
    const std::string whom = each.has_level()     ? "level " + each.level() + " and below"
                             : each.has_session() ? "session " + each.session()
                                                  : "everyone";
    rows.push_back({whom, each.configured() ? "the configuration" : Ago(each.since()) + " ago",
                    Minus(each.reason())});
  }
  PrintTable({"READ-ONLY FOR", "SINCE", "REASON"}, rows);
  return 0;
}

}  // namespace

int PairingList(const Globals& globals) {
  o::ListPairingsResponse response;
  if (const int code =
          Call(globals, &Operator::Stub::ListPairings, o::ListPairingsRequest(), &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  if (response.pairings().empty()) {
    Say("nobody waits, and nobody was let in by pairing");
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const o::Pairing& pairing : response.pairings()) {
    rows.push_back({pairing.channel() + ":" + pairing.sender(), Minus(pairing.name()),
                    pairing.code().empty() ? pairing.level() : "waits", Minus(pairing.code()),
                    Ago(pairing.created_at()) + " ago"});
  }
  PrintTable({"SENDER", "NAME", "LEVEL", "CODE", "SINCE"}, rows);
  return 0;
}

int PairingApprove(const Globals& globals, const std::string& whom, const std::string& level) {
  o::ApprovePairingRequest request;
  IsSender(whom) ? request.set_sender(whom) : request.set_code(whom);
  request.set_level(level);
  o::ApprovePairingResponse response;
  if (const int code = Call(globals, &Operator::Stub::ApprovePairing, request, &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  const o::Pairing& pairing = response.pairing();
  Say(fmt::format("{}:{} is now {}; revoke it with: creel pairing deny {}:{}",
                  Printable(pairing.channel(), 64), Printable(pairing.sender(), 256),
                  pairing.level(), Printable(pairing.channel(), 64),
                  Printable(pairing.sender(), 256)));
  return 0;
}

int PairingDeny(const Globals& globals, const std::string& whom) {
  o::DenyPairingRequest request;
  IsSender(whom) ? request.set_sender(whom) : request.set_code(whom);
  return Act(globals, &Operator::Stub::DenyPairing, request, "denied");
}

int ApprovalsList(const Globals& globals, bool all) {
  o::ListApprovalsResponse response;
  if (const int code =
          Call(globals, &Operator::Stub::ListApprovals, o::ListApprovalsRequest(), &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  bool any = false;
  for (const o::Approval& each : response.approvals()) {
    if (!all && each.state() != o::APPROVAL_STATE_PENDING) {
      continue;
    }
    any = true;
    Say(fmt::format("{}  {}  {} ago", each.id(),
                    Word(o::ApprovalState_Name(each.state()), "APPROVAL_STATE_"),
                    Ago(each.created_at())));
    Say(fmt::format("    {} ({}) wants {} in {}", Printable(Minus(each.sender()), 256),
                    Printable(each.level(), 64), Printable(each.tool(), 64),
                    Printable(each.session(), 512)));
    Say(fmt::format("    {}", Printable(each.summary(), 8192)));
    Say(fmt::format("    parameters sha256 {}, by {}", each.parameters_sha256(),
                    Printable(each.rule(), 128)));
  }
  if (!any) {
    Say("nothing waits for you");
  }
  return 0;
}

int ApprovalsAnswer(const Globals& globals, const std::string& id, bool allow) {
  o::AnswerApprovalRequest request;
  request.set_id(id);
  request.set_allow(allow);
  return Act(globals, &Operator::Stub::AnswerApproval, request,
             allow ? "allowed, this once" : "denied");
}

int ReadOnlySet(const Globals& globals, const ReadOnlyTarget& target, bool on) {
  if (!target.level.empty() && !target.session.empty()) {
    return Fail("name a level or a session, not both", 2);
  }
  o::SetReadOnlyRequest request;
  request.set_on(on);
  if (!target.level.empty()) {
    request.set_level(target.level);
  } else if (!target.session.empty()) {
    request.set_session(target.session);
  }
  request.set_reason(target.reason);
  o::SetReadOnlyResponse response;
  if (const int code = Call(globals, &Operator::Stub::SetReadOnly, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  if (on) {
    Say(fmt::format("read-only mode is on; {} running {} ended", response.stopped(),
                    response.stopped() == 1 ? "command was" : "commands were"));
  }
  return ShowSwitches(response.switches());
}

int ReadOnlyStatus(const Globals& globals) {
  o::GetReadOnlyResponse response;
  if (const int code =
          Call(globals, &Operator::Stub::GetReadOnly, o::GetReadOnlyRequest(), &response);
      code != 0) {
    return code;
  }
  return globals.json ? PrintJson(response) : ShowSwitches(response.switches());
}

int PolicyCheck(const Globals& globals, const std::string& file) {
  const std::optional<std::string> text = ReadText(file);
  if (!text) {
    return 1;
  }
  o::CheckPolicyRequest request;
  request.set_text(*text);
  request.set_name(file);
  o::CheckPolicyResponse response;
  if (const int code = Call(globals, &Operator::Stub::CheckPolicy, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    PrintJson(response);
    return response.good() ? 0 : 1;
  }
  if (!response.good()) {
    std::string errors = response.errors();
    size_t at = 0;
    while (at < errors.size()) {
      const size_t end = std::min(errors.find('\n', at), errors.size());
      Say(Printable(errors.substr(at, end - at), 2000));
      at = end + 1;
    }
    return 1;
  }
  Say(fmt::format("{}: good", Printable(file, 512)));
  for (const std::string& section : response.changed()) {
    Say(fmt::format("  differs from what is in force: {}", Printable(section, 64)));
  }
  return 0;
}

int PolicyShow(const Globals& globals, bool origin) {
  o::ShowPolicyResponse response;
  if (const int code =
          Call(globals, &Operator::Stub::ShowPolicy, o::ShowPolicyRequest(), &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  std::vector<std::vector<std::string>> rows;
  for (const o::PolicyValue& value : response.values()) {
    rows.push_back({value.key(), value.value()});
    if (origin) {
      rows.back().push_back(
          fmt::format("{}:{}{}", value.file(), value.line(),
                      value.source_key().empty() ? "" : " (" + value.source_key() + ")"));
    }
  }
  if (rows.empty()) {
    Say("everything is at its default");
  } else {
    PrintTable(origin ? std::vector<std::string>{"KEY", "VALUE", "FROM"}
                      : std::vector<std::string>{"KEY", "VALUE"},
               rows);
  }
  if (origin && !response.ignored().empty()) {
    Say(fmt::format("\nnot taken from {}:", Printable(response.import_file(), 512)));
    for (const o::IgnoredKey& key : response.ignored()) {
      Say(fmt::format("  line {}: {}: {}", key.line(), Printable(key.key(), 200),
                      Printable(key.why(), 200)));
    }
  }
  return 0;
}

int PolicyReload(const Globals& globals) {
  o::ReloadPolicyResponse response;
  if (const int code =
          Call(globals, &Operator::Stub::ReloadPolicy, o::ReloadPolicyRequest(), &response);
      code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  Say(response.changed().empty() ? "read again; nothing has changed" : "read again; in force now:");
  for (const std::string& section : response.changed()) {
    Say("  " + section);
  }
  for (const std::string& section : response.need_restart()) {
    Say(fmt::format("  {} counts after a restart: systemctl restart creeld", section));
  }
  for (const std::string& session : response.other_limits()) {
    Say(fmt::format(
        "  session {} has other limits than it would get now; those of its level follow at once, "
        "the rest when it is closed and made anew",
        Printable(session, 512)));
  }
  return 0;
}

int Prompt(const Globals& globals, const std::string& level) {
  o::GetPromptRequest request;
  request.set_level(level);
  o::GetPromptResponse response;
  if (const int code = Call(globals, &Operator::Stub::GetPrompt, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  WriteAll(STDOUT_FILENO, response.text());
  return 0;
}

int TrustReset(const Globals& globals, const std::string& session) {
  o::ResetTrustRequest request;
  request.set_session(session);
  return Act(globals, &Operator::Stub::ResetTrust, request, "forgotten who has reached it");
}

int Explain(const Globals& globals, const ExplainSettings& settings) {
  o::ExplainRequest request;
  const bool message = !settings.message.empty() || !settings.group.empty();
  const int questions =
      (settings.tool.empty() ? 0 : 1) + (settings.reply.empty() ? 0 : 1) + (message ? 1 : 0);
  if (questions != 1) {
    return Fail("say what to explain: --tool T, --message TEXT or --reply FILE", 2);
  }
  if (!settings.reply.empty()) {
    std::optional<std::string> text = ReadText(settings.reply);
    if (!text) {
      return 1;
    }
    gateway::v1::CheckReplyRequest& reply = *request.mutable_check_reply();
    reply.set_session(settings.session);
    reply.set_others_read(settings.others_read);
    reply.set_kind(gateway::v1::REPLY_KIND_ANSWER);
    if (!settings.sender.empty()) {
      *reply.add_recipients() = SenderOf(settings.sender);
    }
    reply.set_text(*std::move(text));
  } else if (message) {
    gateway::v1::AdmitRequest& admit = *request.mutable_admit();
    *admit.mutable_sender() = SenderOf(settings.sender);
    admit.set_session(settings.session);
    admit.set_is_group(!settings.group.empty());
    admit.set_chat_id(settings.group);
    admit.set_text(settings.message);
    admit.set_native_mention(settings.mentioned);
    admit.set_is_command(settings.command);
  } else if (settings.place.empty()) {
    o::ExplainCall& call = *request.mutable_call();
    call.set_session(settings.session);
    call.set_sender(settings.sender);
    call.set_tool(settings.tool);
  } else {
    gateway::v1::AuthorizeRequest& authorize = *request.mutable_authorize();
    authorize.set_session(settings.session);
    *authorize.mutable_sender() = SenderOf(settings.sender);
    authorize.set_tool(settings.tool);
    if (settings.place != "host" && settings.place != "sandbox") {
      return Fail(fmt::format("'{}' is no place; write host or sandbox", settings.place), 2);
    }
    authorize.set_place(settings.place == "host" ? gateway::v1::PLACE_HOST
                                                 : gateway::v1::PLACE_SANDBOX);
  }
  o::ExplainResponse response;
  if (const int code = Call(globals, &Operator::Stub::Explain, request, &response); code != 0) {
    return code;
  }
  if (globals.json) {
    return PrintJson(response);
  }
  std::vector<std::vector<std::string>> rows{
      {"verdict", response.verdict()}, {"rule", response.rule()}, {"level", response.level()}};
  if (!response.level_reason().empty()) {
    rows.push_back({"because", response.level_reason()});
  }
  if (!response.place().empty()) {
    rows.push_back({"runs in", response.place()});
  }
  for (const gateway::v1::ReplyFinding& finding : response.findings()) {
    rows.push_back({"found", fmt::format("{} × {}", finding.count(), finding.kind())});
  }
  PrintTable({"WHAT", "ANSWER"}, rows);
  Say(Printable(response.reason(), 1000));
  return 0;
}

}  // namespace creel::cli
