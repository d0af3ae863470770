#include "supervisor/session/policy_desk.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/config/read_file.h"
#include "supervisor/policy/level_limits.h"
#include "supervisor/policy/placement.h"
#include "supervisor/policy/tools.h"
#include "supervisor/session/approved_command.h"

namespace creel {
namespace {

constexpr size_t kMaxSecretFile = 1u << 20;
// What the operator is asked for where it is no tool.
constexpr char kOpening[] = "open";

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kAround = " \t\r\n\"'";
  const size_t first = text.find_first_not_of(kAround);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kAround) - first + 1);
}

std::vector<std::pair<std::string, std::string>> Named(const std::vector<std::string>& values,
                                                       const std::string& file) {
  std::vector<std::pair<std::string, std::string>> named;
  for (const std::string& value : values) {
    named.emplace_back(file.substr(file.rfind('/') + 1), value);
  }
  return named;
}

// The secrets of a file: of each line the value after `NAME=`, else all of it.
void AddSecretsOf(std::string_view text, std::vector<std::string>& secrets) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t name =
        line.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_ ");
    if (name != std::string_view::npos && name > 0 && line[name] == '=' && name + 1 < line.size()) {
      line.remove_prefix(name + 1);
    }
    line = Trimmed(line);
    if (line.size() >= SecretFinder::kLeastBytes && !line.starts_with("-----")) {
      secrets.emplace_back(line);
    }
  }
}

std::shared_ptr<const ReplyGuard> MakeGuard(const Config& config,
                                            const std::vector<std::string>& secrets) {
  std::vector<std::string> folders = config.policy.host_paths;
  folders.push_back(config.paths.run_dir);
  folders.push_back(config.paths.state_dir);
  return std::make_shared<const ReplyGuard>(secrets, folders, config.policy.on_secret);
}

std::string PairingReply(const SenderId& sender, const std::string& code) {
  return fmt::format(
      "I do not know you yet. Your {} id is {}, and your code is {}. Please pass it on to the "
      "person "
      "who runs this assistant; once they have approved it I can answer you.",
      sender.channel, sender.id, code);
}

}  // namespace

struct PolicyDesk::Listeners {
  Mutex mu;
  std::map<uint64_t, std::function<void()>> each ABSL_GUARDED_BY(mu);
  uint64_t next ABSL_GUARDED_BY(mu) = 0;
  std::atomic<uint64_t> version{1};
};

PolicyDesk::PolicyDesk() : listeners_(std::make_shared<Listeners>()) {}

absl::StatusOr<std::unique_ptr<PolicyDesk>> PolicyDesk::Create(const Config& config,
                                                               PolicyStore& store,
                                                               const Clock& clock) {
  std::unique_ptr<PolicyDesk> desk(new PolicyDesk());
  ASSIGN_OR_RETURN(InForce now, desk->Make(config, {}));
  ASSIGN_OR_RETURN(desk->pairings_, Pairings::Load(store, clock));
  ASSIGN_OR_RETURN(desk->trust_, TrustLevels::Load(store, clock));
  ASSIGN_OR_RETURN(desk->approvals_, Approvals::Load(store, clock));
  ASSIGN_OR_RETURN(desk->switches_, ReadOnlySwitches::Load(store, clock));
  {
    MutexLock hold(desk->mu_);
    desk->now_ = std::move(now);
  }
  // The configuration may be another one than when this was written.
  desk->FollowStandings();
  return desk;
}

absl::StatusOr<PolicyDesk::InForce> PolicyDesk::Make(const Config& config,
                                                     const std::vector<std::string>& more) const {
  InForce made{.config = std::make_shared<const Config>(config),
               .policy = {},
               .guard = {},
               .named_secrets = {}};
  ASSIGN_OR_RETURN(made.policy, Policy::Compile(config));
  std::vector<std::string> secrets = config.provenance.secrets;
  made.named_secrets = Named(secrets, config.gateway_import);
  for (const std::string& file : config.policy.secret_files) {
    absl::StatusOr<std::string> text = ReadWholeFile(file, kMaxSecretFile);
    if (!text.ok()) {
      return Annotate(text.status(), "replies.secret_files");
    }
    std::vector<std::string> found;
    AddSecretsOf(*text, found);
    for (std::pair<std::string, std::string>& each : Named(found, file)) {
      made.named_secrets.push_back(std::move(each));
    }
    secrets.insert(secrets.end(), found.begin(), found.end());
  }
  secrets.insert(secrets.end(), more.begin(), more.end());
  made.guard = MakeGuard(config, secrets);
  return made;
}

absl::Status PolicyDesk::Reload(const Config& fresh) {
  std::vector<std::string> more;
  {
    MutexLock hold(mu_);
    more = secrets_;
  }
  ASSIGN_OR_RETURN(InForce now, Make(fresh, more));
  {
    MutexLock hold(mu_);
    now_ = std::move(now);
  }
  Changed();
  FollowStandings();
  return absl::OkStatus();
}

void PolicyDesk::FollowStandings() {
  const InForce now = Now();
  const Levels& levels = now.policy->levels();
  for (const TrustLevels::Reached& reached : trust_->All()) {
    Level lowest = levels.Of(reached.level);
    std::string who;
    for (const std::string& sender : reached.senders) {
      const Standing standing = StandingOf(*now.policy, ParseSender(sender));
      const Level level = standing.blocked ? Levels::lowest() : standing.level;
      if (level < lowest) {
        lowest = level;
        who = sender;
      }
    }
    if (who.empty()) {
      continue;
    }
    if (const absl::Status fell = trust_->Reach(reached.name, levels.Name(lowest), who, levels);
        !fell.ok()) {
      spdlog::error("sandbox \"{}\" does not fall to level '{}': {}", Printable(reached.name, 120),
                    levels.Name(lowest), Printable(std::string(fell.message()), 512));
    }
  }
}

void PolicyDesk::SetSecrets(std::vector<std::string> secrets) {
  MutexLock hold(mu_);
  // What was read from files is kept as it was read: a file that is gone now must not keep what is
  // new from being guarded.
  std::vector<std::string> all = secrets;
  for (const auto& [name, value] : now_.named_secrets) {
    all.push_back(value);
  }
  now_.guard = MakeGuard(*now_.config, all);
  secrets_ = std::move(secrets);
}

std::vector<std::pair<std::string, std::string>> PolicyDesk::NamedSecrets() const {
  return Now().named_secrets;
}

PolicyDesk::InForce PolicyDesk::Now() const {
  MutexLock hold(mu_);
  return now_;
}

std::shared_ptr<const Policy> PolicyDesk::policy() const { return Now().policy; }
std::shared_ptr<const Config> PolicyDesk::config() const { return Now().config; }

Standing PolicyDesk::StandingOf(const Policy& policy, const SenderId& sender) const {
  return policy.StandingOf(sender, pairings_->LevelOf(sender));
}

ReadOnlyFacts PolicyDesk::ReadOnlyFor(const Policy& policy, std::string_view session,
                                      std::string& reason) const {
  ReadOnlyFacts facts = policy.ConfiguredReadOnly();
  for (const ReadOnlyRecord& record : switches_->List()) {
    if (record.scope == "all") {
      facts.all = true;
    } else if (record.scope == "level") {
      facts.level = std::max(facts.level, policy.levels().Of(record.name));
    } else if (record.name == session) {
      facts.session = true;
    } else {
      continue;
    }
    reason = reason.empty() ? record.reason : reason;
  }
  facts.reason = reason;
  return facts;
}

Level PolicyDesk::KeptFor(const InForce& now, const std::string& session) const {
  const std::string kept = trust_->Kept(Place(now.config->sandbox, session).sandbox_name);
  return kept.empty() ? -1 : now.policy->levels().Of(kept);
}

absl::Status PolicyDesk::Reach(const InForce& now, const std::string& session,
                               const SenderId& sender, Level level) {
  const Levels& levels = now.policy->levels();
  return trust_->Reach(Place(now.config->sandbox, session).sandbox_name, levels.Name(level),
                       sender.text(), levels);
}

AdmitAnswer PolicyDesk::Judge(const AdmitQuestion& question) const {
  const InForce now = Now();
  const Standing standing = StandingOf(*now.policy, question.sender);
  return {.decision = now.policy->Admit({.sender = question.sender,
                                         .standing = standing,
                                         .chat_id = question.chat_id,
                                         .is_group = question.is_group,
                                         .native_mention = question.native_mention,
                                         .text = question.text,
                                         .is_command = question.is_command}),
          .level = now.policy->levels().Name(standing.level),
          .level_reason = fmt::format("the sender {}", standing.why),
          .reply = {}};
}

CallAnswer PolicyDesk::Judge(const CallQuestion& question) const {
  const InForce now = Now();
  Standing standing = StandingOf(*now.policy, question.sender);
  std::string reason;
  const ReadOnlyFacts read_only = ReadOnlyFor(*now.policy, question.session, reason);
  Level kept = KeptFor(now, question.session);
  std::string lowest_heard;
  for (const SenderId& heard : question.also_heard) {
    const Level level = StandingOf(*now.policy, heard).level;
    kept = std::min(kept >= 0 ? kept : now.policy->Unnamed(question.session), level);
    if (question.sender.known() && level < standing.level) {
      standing.level = level;
      lowest_heard = heard.text();
    }
  }
  CallAnswer answer;
  answer.decision = now.policy->DecideTool({.session = question.session,
                                            .sender = question.sender,
                                            .standing = standing,
                                            .kept = kept,
                                            .tool = question.tool,
                                            .claimed_group = question.claimed_group,
                                            .place = question.place,
                                            .read_only = read_only});
  answer.level = now.policy->levels().Name(answer.decision.level);
  if (!question.sender.known()) {
    answer.level_reason = kept >= 0 ? "nobody is named; the session has this level"
                                    : "nobody is named, and nobody was before";
  } else if (!lowest_heard.empty()) {
    answer.level_reason =
        fmt::format("{} wrote in this session lately", Printable(lowest_heard, 80));
    answer.decision.reason += fmt::format(" ({})", answer.level_reason);
  } else if (answer.decision.level < standing.level) {
    answer.level_reason =
        fmt::format("the sender {}, but somebody of level {} has reached this sandbox before",
                    standing.why, answer.level);
  } else {
    answer.level_reason = fmt::format("the sender {}", standing.why);
  }
  return answer;
}

ReplyAnswerWithLevel PolicyDesk::Judge(const ReplyQuestion& question) const {
  const InForce now = Now();
  const Levels& levels = now.policy->levels();
  Level readers = levels.highest();
  for (const SenderId& recipient : question.recipients) {
    readers = std::min(readers, StandingOf(*now.policy, recipient).level);
  }
  if (question.others_read) {
    readers = Levels::lowest();
  } else if (question.recipients.empty()) {
    // Nobody is named: whoever has reached the session may be reading, and the owner may not.
    const Level kept = question.session.empty() ? Levels::lowest() : KeptFor(now, question.session);
    const Level session = kept >= 0 ? kept : now.policy->Unnamed(question.session);
    readers = std::min(session, levels.Of(kFriend));
  }
  std::string reason;
  const ReadOnlyFacts read_only = ReadOnlyFor(*now.policy, question.session, reason);
  const ReplyRules rules = now.policy->RulesForReply(
      {.readers = readers, .unasked = question.unasked, .read_only = read_only});
  return {.answer = now.guard->Check(question.text, rules), .level = levels.Name(readers)};
}

absl::StatusOr<AdmitAnswer> PolicyDesk::Admit(const AdmitQuestion& question) {
  AdmitAnswer answer = Judge(question);
  const InForce now = Now();
  if (answer.decision.verdict == AdmitVerdict::kPair) {
    ASSIGN_OR_RETURN(const std::string code,
                     pairings_->Request(question.sender, question.account, question.name,
                                        now.config->policy.pairing_lifetime,
                                        now.config->policy.pairing_pending));
    if (!code.empty()) {
      answer.reply = PairingReply(question.sender, code);
    }
  }
  if (answer.decision.verdict == AdmitVerdict::kAdmit && !question.session.empty()) {
    RETURN_IF_ERROR(
        Reach(now, question.session, question.sender, now.policy->levels().Of(answer.level)));
  }
  return answer;
}

absl::StatusOr<CallAnswer> PolicyDesk::BeginCall(const CallQuestion& question) {
  CallAnswer answer = Judge(question);
  const InForce now = Now();
  // What counts for the sandbox is who asked, even if it is refused: the words are in the model.
  const Level level = question.sender.known() ? StandingOf(*now.policy, question.sender).level
                                              : answer.decision.level;
  RETURN_IF_ERROR(Reach(now, question.session, question.sender, level));
  for (const SenderId& heard : question.also_heard) {
    RETURN_IF_ERROR(Reach(now, question.session, heard, StandingOf(*now.policy, heard).level));
  }
  return answer;
}

absl::StatusOr<AuthorizeAnswer> PolicyDesk::Authorize(const CallQuestion& question,
                                                      const std::string& parameters,
                                                      const std::string& tool_call_id,
                                                      const std::string& approval_id) {
  ASSIGN_OR_RETURN(CallAnswer call, BeginCall(question));
  AuthorizeAnswer answer{.call = std::move(call), .approval_id = {}, .expires_at = {}};
  if (answer.call.decision.verdict != Verdict::kAsk) {
    return answer;
  }
  Sha256 digest;
  digest.Update(parameters);
  const ApprovalSubject subject{.session = question.session,
                                .sender = question.sender.text(),
                                .tool = question.tool,
                                .parameters_sha256 = Hex(digest.Finish()),
                                .tool_call_id = tool_call_id,
                                .line = LineOfParameters(question.tool, parameters)};
  ToolDecision& decision = answer.call.decision;
  if (!approval_id.empty()) {
    ASSIGN_OR_RETURN(const ApprovalAnswer said, approvals_->Use(approval_id, subject));
    switch (said) {
      case ApprovalAnswer::kAllowed:
        decision.verdict = Verdict::kAllow;
        decision.reason =
            fmt::format("the operator allowed '{}' this once", Printable(question.tool, 64));
        return answer;
      case ApprovalAnswer::kPending:
        break;  // found again below
      case ApprovalAnswer::kDenied:
      case ApprovalAnswer::kExpired:
      case ApprovalAnswer::kOther:
        decision.verdict = Verdict::kDeny;
        decision.reason = said == ApprovalAnswer::kDenied ? "the operator refused this call"
                          : said == ApprovalAnswer::kExpired
                              ? "the operator did not answer in time"
                              : "the approval is not for this call, or was used";
        return answer;
    }
  }
  ASSIGN_OR_RETURN(
      const ApprovalRecord record,
      approvals_->Ask(subject, answer.call.level, decision.rule, ParametersForOperator(parameters),
                      Now().config->policy.approval_timeout));
  answer.approval_id = record.id;
  answer.expires_at = record.expires_at;
  decision.reason = fmt::format("{}; the operator answers with: creel approvals allow {}",
                                decision.reason, record.id);
  return answer;
}

CallAnswer PolicyDesk::JudgeOpening(CallQuestion question) const {
  question.place = ToolPlace::kSandbox;
  CallAnswer best;
  for (const auto& [group, tools] : ToolGroups()) {
    if (group != "group:runtime" && group != "group:fs") {
      continue;
    }
    for (const std::string& tool : tools) {
      question.tool = tool;
      CallAnswer answer = Judge(question);
      if (answer.decision.verdict == Verdict::kAllow) {
        return answer;
      }
      if (best.level.empty() ||
          (answer.decision.verdict == Verdict::kAsk && best.decision.verdict == Verdict::kDeny)) {
        best = std::move(answer);
      }
    }
  }
  return best;
}

absl::StatusOr<AuthorizeAnswer> PolicyDesk::BeginOpening(const CallQuestion& question) {
  AuthorizeAnswer answer{.call = JudgeOpening(question), .approval_id = {}, .expires_at = {}};
  const InForce now = Now();
  const Level level = question.sender.known() ? StandingOf(*now.policy, question.sender).level
                                              : answer.call.decision.level;
  RETURN_IF_ERROR(Reach(now, question.session, question.sender, level));
  if (answer.call.decision.verdict != Verdict::kAsk) {
    return answer;
  }
  const ApprovalSubject subject{.session = question.session,
                                .sender = question.sender.text(),
                                .tool = kOpening,
                                .parameters_sha256 = {},
                                .tool_call_id = {}};
  ASSIGN_OR_RETURN(const bool allowed, approvals_->UseAny(subject));
  if (allowed) {
    answer.call.decision.verdict = Verdict::kAllow;
    answer.call.decision.reason = "the operator allowed this opening";
    return answer;
  }
  ASSIGN_OR_RETURN(
      const ApprovalRecord record,
      approvals_->Ask(subject, answer.call.level, answer.call.decision.rule,
                      "a sandbox for this session", now.config->policy.approval_timeout));
  answer.approval_id = record.id;
  answer.expires_at = record.expires_at;
  answer.call.decision.reason = fmt::format(
      "the operator is asked before a sandbox is opened for level {}; once they have "
      "answered (creel approvals allow {}) open it again",
      answer.call.level, record.id);
  return answer;
}

absl::Status PolicyDesk::Reached(const std::string& session, const SenderId& sender) {
  const InForce now = Now();
  return sender.known() ? Reach(now, session, sender, StandingOf(*now.policy, sender).level)
                        : absl::OkStatus();
}

absl::StatusOr<std::pair<std::string, std::string>> PolicyDesk::Prompt(
    const std::string& level, const std::string& session) const {
  const InForce now = Now();
  const Levels& levels = now.policy->levels();
  if (!level.empty() && !levels.Has(level)) {
    return absl::NotFoundError(fmt::format("there is no level '{}'; there are {}",
                                           Printable(level, 80), fmt::join(levels.names(), ", ")));
  }
  Level counts = Levels::lowest();
  if (!level.empty()) {
    counts = levels.Of(level);
  } else if (!session.empty()) {
    const Level kept = KeptFor(now, session);
    counts = kept >= 0 ? kept : now.policy->Unnamed(session);
  }
  std::string reason;
  return std::pair(now.policy->Prompt(counts, ReadOnlyFor(*now.policy, session, reason)),
                   levels.Name(counts));
}

std::string PolicyDesk::LevelOfName(const std::string& name) const {
  const InForce now = Now();
  const Levels& levels = now.policy->levels();
  const std::string kept = trust_->Kept(name);
  return levels.Name(kept.empty() ? now.policy->Unnamed(name) : levels.Of(kept));
}

LimitsConfig PolicyDesk::LimitsOfName(const std::string& name) const {
  const InForce now = Now();
  const Levels& levels = now.policy->levels();
  const std::string kept = trust_->Kept(name);
  const Level level = kept.empty() ? now.policy->Unnamed(name) : levels.Of(kept);
  return LimitsAt(now.config->policy, now.config->sandbox.limits, levels, level);
}

absl::Status PolicyDesk::SetReadOnly(const ReadOnlyScope& scope, bool on,
                                     const std::string& reason) {
  const InForce now = Now();
  const Levels& levels = now.policy->levels();
  if (scope.kind == ReadOnlyScope::Kind::kLevel && !levels.Has(scope.name)) {
    return absl::NotFoundError(fmt::format("there is no level '{}'; there are {}",
                                           Printable(scope.name, 80),
                                           fmt::join(levels.names(), ", ")));
  }
  if (!on) {
    const ReadOnlyFacts fixed = now.policy->ConfiguredReadOnly();
    const bool configured = scope.kind == ReadOnlyScope::Kind::kAll ? fixed.all
                            : scope.kind == ReadOnlyScope::Kind::kLevel
                                ? levels.Of(scope.name) <= fixed.level
                                : false;
    if (configured) {
      return absl::FailedPreconditionError(
          "read-only mode is on by configuration (read_only, levels.*.read_only); change the file "
          "and read it again: creel policy reload");
    }
  }
  const absl::Status set = switches_->Set(scope, on, reason);
  Changed();
  return set;
}

std::vector<ReadOnlyState> PolicyDesk::ReadOnly() const {
  const InForce now = Now();
  std::vector<ReadOnlyState> states;
  if (now.config->policy.read_only) {
    states.push_back({.scope = {}, .reason = {}, .since = {}, .configured = true});
  }
  for (const auto& [name, level] : now.config->policy.levels) {
    if (level.read_only) {
      states.push_back({.scope = {.kind = ReadOnlyScope::Kind::kLevel, .name = name},
                        .reason = {},
                        .since = {},
                        .configured = true});
    }
  }
  for (const ReadOnlyRecord& record : switches_->List()) {
    states.push_back({.scope = {.kind = record.scope == "all"     ? ReadOnlyScope::Kind::kAll
                                        : record.scope == "level" ? ReadOnlyScope::Kind::kLevel
                                                                  : ReadOnlyScope::Kind::kSession,
                                .name = record.name},
                      .reason = record.reason,
                      .since = record.since,
                      .configured = false});
  }
  return states;
}

bool PolicyDesk::IsReadOnly(const std::string& session) const {
  const InForce now = Now();
  std::string reason;
  const ReadOnlyFacts facts = ReadOnlyFor(*now.policy, session, reason);
  const Level kept = KeptFor(now, session);
  const Level level = kept >= 0 ? kept : now.policy->Unnamed(session);
  return facts.all || facts.session || level <= facts.level;
}

bool PolicyDesk::IsReadOnlyAt(const std::string& name, const std::string& level) const {
  const InForce now = Now();
  std::string reason;
  const ReadOnlyFacts facts = ReadOnlyFor(*now.policy, name, reason);
  if (facts.all || facts.session || now.policy->levels().Of(level) <= facts.level) {
    return true;
  }
  const std::vector<ReadOnlyRecord> switches = switches_->List();
  return std::any_of(switches.begin(), switches.end(), [&](const ReadOnlyRecord& record) {
    return record.scope == "session" &&
           Place(now.config->sandbox, record.name).sandbox_name == name;
  });
}

uint64_t PolicyDesk::version() const { return listeners_->version.load(std::memory_order_relaxed); }

void PolicyDesk::Changed() {
  listeners_->version.fetch_add(1, std::memory_order_relaxed);
  std::vector<std::function<void()>> each;
  {
    MutexLock hold(listeners_->mu);
    for (const auto& [id, listener] : listeners_->each) {
      each.push_back(listener);
    }
  }
  for (const auto& listener : each) {
    listener();
  }
}

std::shared_ptr<void> PolicyDesk::OnChange(std::function<void()> changed) {
  uint64_t id = 0;
  {
    MutexLock hold(listeners_->mu);
    id = ++listeners_->next;
    listeners_->each.emplace(id, std::move(changed));
  }
  return {nullptr, [listeners = listeners_, id](void*) {
            MutexLock hold(listeners->mu);
            listeners->each.erase(id);
          }};
}

}  // namespace creel
