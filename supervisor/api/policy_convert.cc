#include "supervisor/api/policy_convert.h"

#include <fmt/format.h>

#include <utility>

#include "supervisor/api/convert.h"
#include "supervisor/base/escape.h"
#include "supervisor/policy/placement.h"

namespace creel {
namespace {

constexpr size_t kMaxChannel = 64;
constexpr size_t kMaxId = 256;
constexpr size_t kMaxTool = 64;
constexpr size_t kMaxToolCallId = 128;
constexpr size_t kMaxMentionText = 4096;
constexpr size_t kMaxParameters = 256u << 10;
constexpr size_t kMaxReply = 1u << 20;
constexpr int kMaxRecipients = 10'000;
constexpr int kMaxHeard = 100;

absl::Status CheckLength(std::string_view field, const std::string& value, size_t most) {
  return value.size() <= most
             ? absl::OkStatus()
             : absl::InvalidArgumentError(fmt::format("`{}` has {} bytes and at most {} are taken",
                                                      field, value.size(), most));
}

absl::StatusOr<SenderId> FromMessage(const gateway::v1::Sender& sender) {
  RETURN_IF_ERROR(CheckLength("channel", sender.channel(), kMaxChannel));
  RETURN_IF_ERROR(CheckLength("id", sender.id(), kMaxId));
  RETURN_IF_ERROR(CheckLength("account", sender.account(), kMaxId));
  RETURN_IF_ERROR(CheckSender(sender.channel()));
  RETURN_IF_ERROR(CheckSender(sender.id()));
  RETURN_IF_ERROR(CheckSender(sender.account()));
  return sender.channel().empty() ? ParseSender(sender.id())
                                  : NormalSender(sender.channel(), sender.id());
}

gateway::v1::Place ToMessage(ToolPlace place) {
  return place == ToolPlace::kHost      ? gateway::v1::PLACE_HOST
         : place == ToolPlace::kSandbox ? gateway::v1::PLACE_SANDBOX
                                        : gateway::v1::PLACE_UNSPECIFIED;
}

std::string_view Word(Verdict verdict) {
  return verdict == Verdict::kAllow ? "allow" : verdict == Verdict::kAsk ? "ask" : "deny";
}

std::string_view Word(ToolPlace place) {
  return place == ToolPlace::kHost ? "host" : place == ToolPlace::kSandbox ? "sandbox" : "";
}

}  // namespace

absl::StatusOr<AdmitQuestion> FromMessage(const gateway::v1::AdmitRequest& request) {
  AdmitQuestion question;
  ASSIGN_OR_RETURN(question.sender, FromMessage(request.sender()));
  if (request.sender().channel().empty() || !question.sender.known()) {
    return absl::InvalidArgumentError("`sender` needs a channel and an id");
  }
  RETURN_IF_ERROR(CheckLength("chat_id", request.chat_id(), kMaxId));
  if (!request.session().empty()) {
    RETURN_IF_ERROR(CheckSessionKey(request.session()));
  }
  question.account = request.sender().account();
  question.name = Printable(request.sender().name(), kMaxId);
  question.chat_id = request.chat_id();
  question.session = request.session();
  question.text = request.text().substr(0, kMaxMentionText);
  question.is_group = request.is_group();
  question.native_mention = request.native_mention();
  question.is_command = request.is_command();
  return question;
}

absl::StatusOr<CallQuestion> FromMessage(const gateway::v1::AuthorizeRequest& request) {
  RETURN_IF_ERROR(CheckSessionKey(request.session()));
  CallQuestion question;
  ASSIGN_OR_RETURN(question.sender, FromMessage(request.sender()));
  if (request.tool().empty()) {
    return absl::InvalidArgumentError("`tool` is empty; name the tool");
  }
  RETURN_IF_ERROR(CheckLength("tool", request.tool(), kMaxTool));
  RETURN_IF_ERROR(CheckLength("group", request.group(), kMaxTool));
  RETURN_IF_ERROR(CheckLength("parameters", request.parameters(), kMaxParameters));
  RETURN_IF_ERROR(CheckLength("tool_call_id", request.tool_call_id(), kMaxToolCallId));
  RETURN_IF_ERROR(CheckLength("approval_id", request.approval_id(), kMaxTool));
  if (request.also_heard_size() > kMaxHeard) {
    return absl::InvalidArgumentError(
        fmt::format("`also_heard` holds more than {} senders", kMaxHeard));
  }
  for (const gateway::v1::Sender& heard : request.also_heard()) {
    ASSIGN_OR_RETURN(SenderId sender, FromMessage(heard));
    if (!sender.known()) {
      return absl::InvalidArgumentError("a sender of `also_heard` has no id");
    }
    question.also_heard.push_back(std::move(sender));
  }
  question.session = request.session();
  question.tool = request.tool();
  question.claimed_group = request.group();
  switch (request.place()) {
    case gateway::v1::PLACE_HOST:
      question.place = ToolPlace::kHost;
      break;
    case gateway::v1::PLACE_SANDBOX:
      question.place = ToolPlace::kSandbox;
      break;
    case gateway::v1::PLACE_UNSPECIFIED:
      break;
    default:
      return absl::InvalidArgumentError("`place` is none that this version knows");
  }
  return question;
}

absl::StatusOr<ReplyQuestion> FromMessage(const gateway::v1::CheckReplyRequest& request) {
  ReplyQuestion question;
  if (!request.session().empty()) {
    RETURN_IF_ERROR(CheckSessionKey(request.session()));
  }
  RETURN_IF_ERROR(CheckLength("text", request.text(), kMaxReply));
  if (request.recipients_size() > kMaxRecipients) {
    return absl::InvalidArgumentError(
        fmt::format("more than {} recipients are named; set `others_read`", kMaxRecipients));
  }
  for (const gateway::v1::Sender& recipient : request.recipients()) {
    ASSIGN_OR_RETURN(SenderId id, FromMessage(recipient));
    question.recipients.push_back(std::move(id));
  }
  question.session = request.session();
  question.others_read = request.others_read();
  question.unasked = request.kind() != gateway::v1::REPLY_KIND_ANSWER;
  question.text = request.text();
  return question;
}

absl::StatusOr<CallQuestion> FromMessage(const operator_::v1::ExplainCall& request) {
  RETURN_IF_ERROR(CheckSessionKey(request.session()));
  RETURN_IF_ERROR(CheckSender(request.sender()));
  if (request.tool().empty()) {
    return absl::InvalidArgumentError("`tool` is empty; name the tool");
  }
  RETURN_IF_ERROR(CheckLength("tool", request.tool(), kMaxTool));
  return CallQuestion{.session = request.session(),
                      .sender = ParseSender(request.sender()),
                      .tool = request.tool(),
                      .claimed_group = {},
                      .place = ToolPlace::kSandbox};
}

gateway::v1::AdmitResponse ToMessage(const AdmitAnswer& answer) {
  gateway::v1::AdmitResponse message;
  switch (answer.decision.verdict) {
    case AdmitVerdict::kAdmit:
      message.set_verdict(gateway::v1::ADMIT_VERDICT_ADMIT);
      break;
    case AdmitVerdict::kIgnore:
      message.set_verdict(gateway::v1::ADMIT_VERDICT_IGNORE);
      break;
    case AdmitVerdict::kPair:
      message.set_verdict(gateway::v1::ADMIT_VERDICT_PAIR);
      break;
    case AdmitVerdict::kDeny:
      message.set_verdict(gateway::v1::ADMIT_VERDICT_DENY);
      break;
  }
  message.set_level(answer.level);
  message.set_rule(answer.decision.rule);
  message.set_reason(answer.decision.reason);
  message.set_reply(answer.reply);
  return message;
}

gateway::v1::AuthorizeResponse ToMessage(const AuthorizeAnswer& answer) {
  gateway::v1::AuthorizeResponse message;
  const ToolDecision& decision = answer.call.decision;
  message.set_verdict(decision.verdict == Verdict::kAllow ? gateway::v1::VERDICT_ALLOW
                      : decision.verdict == Verdict::kAsk ? gateway::v1::VERDICT_ASK
                                                          : gateway::v1::VERDICT_DENY);
  message.set_rule(decision.rule);
  message.set_reason(decision.reason);
  message.set_level(answer.call.level);
  message.set_required_place(ToMessage(decision.required));
  if (decision.verdict == Verdict::kAsk) {
    message.set_approval_id(answer.approval_id);
    *message.mutable_expires_at() = ToTimestamp(answer.expires_at);
  }
  return message;
}

gateway::v1::CheckReplyResponse ToMessage(ReplyAnswerWithLevel answer) {
  gateway::v1::CheckReplyResponse message;
  message.set_verdict(
      answer.answer.verdict == ReplyVerdict::kAllow    ? gateway::v1::REPLY_VERDICT_ALLOW
      : answer.answer.verdict == ReplyVerdict::kRedact ? gateway::v1::REPLY_VERDICT_REDACT
                                                       : gateway::v1::REPLY_VERDICT_DENY);
  message.set_text(std::move(answer.answer.text));
  message.set_rule(answer.answer.rule);
  message.set_reason(answer.answer.reason);
  message.set_level(answer.level);
  for (const ReplyFinding& finding : answer.answer.findings) {
    gateway::v1::ReplyFinding& line = *message.add_findings();
    line.set_kind(finding.kind);
    line.set_count(finding.count);
  }
  return message;
}

gateway::v1::ReadOnlySwitch ToMessage(const ReadOnlyState& state) {
  gateway::v1::ReadOnlySwitch message;
  if (state.scope.kind == ReadOnlyScope::Kind::kLevel) {
    message.set_level(state.scope.name);
  } else if (state.scope.kind == ReadOnlyScope::Kind::kSession) {
    message.set_session(state.scope.name);
  }
  message.set_reason(state.reason);
  if (!state.configured) {
    *message.mutable_since() = ToTimestamp(state.since);
  }
  message.set_configured(state.configured);
  return message;
}

gateway::v1::State StateMessage(const PolicyDesk& desk, const SessionManager& sessions) {
  gateway::v1::State message;
  // The version first: what changes meanwhile is then told again rather than missed.
  message.set_policy_version(desk.version());
  for (const ReadOnlyState& state : desk.ReadOnly()) {
    *message.add_read_only() = ToMessage(state);
  }
  for (const SessionView& view : sessions.List()) {
    if (view.state == SessionState::kFrozen) {
      message.add_frozen_sessions(view.session);
    }
  }
  return message;
}

operator_::v1::Pairing ToMessage(const PairingRequestRecord& record) {
  operator_::v1::Pairing message;
  message.set_channel(record.channel);
  message.set_account(record.account);
  message.set_sender(record.sender);
  message.set_name(record.name);
  message.set_code(record.code);
  *message.mutable_created_at() = ToTimestamp(record.created_at);
  *message.mutable_expires_at() = ToTimestamp(record.expires_at);
  return message;
}

operator_::v1::Pairing ToMessage(const PairingRecord& record) {
  operator_::v1::Pairing message;
  message.set_channel(record.channel);
  message.set_sender(record.sender);
  message.set_name(record.name);
  message.set_level(record.level);
  *message.mutable_created_at() = ToTimestamp(record.approved_at);
  return message;
}

operator_::v1::Approval ToMessage(const ApprovalRecord& record) {
  operator_::v1::Approval message;
  message.set_id(record.id);
  message.set_session(record.session);
  message.set_sender(record.sender);
  message.set_level(record.level);
  message.set_tool(record.tool);
  message.set_summary(record.summary);
  message.set_parameters_sha256(record.parameters_sha256);
  message.set_rule(record.rule);
  message.set_state(record.state == "pending"   ? operator_::v1::APPROVAL_STATE_PENDING
                    : record.state == "allowed" ? operator_::v1::APPROVAL_STATE_ALLOWED
                    : record.state == "denied"  ? operator_::v1::APPROVAL_STATE_DENIED
                    : record.state == "used"    ? operator_::v1::APPROVAL_STATE_USED
                                                : operator_::v1::APPROVAL_STATE_EXPIRED);
  *message.mutable_created_at() = ToTimestamp(record.created_at);
  *message.mutable_expires_at() = ToTimestamp(record.expires_at);
  return message;
}

operator_::v1::ExplainResponse Explained(const AdmitAnswer& answer) {
  operator_::v1::ExplainResponse message;
  switch (answer.decision.verdict) {
    case AdmitVerdict::kAdmit:
      message.set_verdict("admit");
      break;
    case AdmitVerdict::kIgnore:
      message.set_verdict("ignore");
      break;
    case AdmitVerdict::kPair:
      message.set_verdict("pair");
      break;
    case AdmitVerdict::kDeny:
      message.set_verdict("deny");
      break;
  }
  message.set_rule(answer.decision.rule);
  message.set_reason(answer.decision.reason);
  message.set_level(answer.level);
  message.set_level_reason(answer.level_reason);
  return message;
}

operator_::v1::ExplainResponse Explained(const CallAnswer& answer) {
  operator_::v1::ExplainResponse message;
  message.set_verdict(std::string(Word(answer.decision.verdict)));
  message.set_rule(answer.decision.rule);
  message.set_reason(answer.decision.reason);
  message.set_level(answer.level);
  message.set_level_reason(answer.level_reason);
  message.set_place(std::string(Word(answer.decision.required)));
  return message;
}

operator_::v1::ExplainResponse Explained(const ReplyAnswerWithLevel& answer) {
  operator_::v1::ExplainResponse message;
  message.set_verdict(answer.answer.verdict == ReplyVerdict::kAllow    ? "allow"
                      : answer.answer.verdict == ReplyVerdict::kRedact ? "redact"
                                                                       : "deny");
  message.set_rule(answer.answer.rule);
  message.set_reason(answer.answer.reason);
  message.set_level(answer.level);
  for (const ReplyFinding& finding : answer.answer.findings) {
    gateway::v1::ReplyFinding& line = *message.add_findings();
    line.set_kind(finding.kind);
    line.set_count(finding.count);
  }
  return message;
}

}  // namespace creel
