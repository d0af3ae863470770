#include "supervisor/policy/tool_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/policy/placement.h"

namespace creel {
namespace {

void Refuse(ToolDecision& decision, std::string rule, std::string reason) {
  decision.verdict = Verdict::kDeny;
  decision.rule = std::move(rule);
  decision.reason = std::move(reason);
}

std::string Shown(std::string_view tool) { return Printable(tool, 64); }

}  // namespace

bool RefusedByReadOnly(const ReadOnlyFacts& read_only, Level level, const std::string& level_name,
                       ToolEffect effect, std::string& rule, std::string& reason) {
  const bool by_level = level <= read_only.level;
  if (effect == ToolEffect::kReads || (!read_only.all && !by_level && !read_only.session)) {
    return false;
  }
  rule = read_only.all ? "read-only.all" : by_level ? "read-only.level" : "read-only.session";
  const std::string whom = read_only.all ? "is on"
                           : by_level    ? fmt::format("is on for level {}", level_name)
                                         : "is on for this session";
  const std::string_view what = effect == ToolEffect::kShell    ? "no command runs"
                                : effect == ToolEffect::kWrites ? "nothing is written"
                                : effect == ToolEffect::kSends
                                    ? "no messages are sent but answers"
                                    : "only tools run that are known to read";
  reason = fmt::format("read-only mode {}: {}; reading still works{}", whom, what,
                       read_only.reason.empty()
                           ? std::string()
                           : fmt::format(" ({})", Printable(read_only.reason, 256)));
  return true;
}

ToolRules::ToolRules(const Config& config, const Levels& levels)
    : levels_(levels), sandbox_(config.sandbox), unnamed_(levels.Of(config.policy.unnamed)) {
  bool host = true;
  host_ = 0;
  for (Level level = levels.highest(); level >= Levels::lowest(); --level) {
    host = host && config.policy.levels.at(levels.Name(level)).host;
    host_ |= host ? LevelMask{1} << level : 0;
  }
  for (const std::string& name : levels.names()) {
    const LevelConfig& from = config.policy.levels.at(name);
    of_level_.push_back(
        {.allow = ToolSet(from.allow), .ask = ToolSet(from.ask), .deny = ToolSet(from.deny)});
  }
  for (const auto& [name, from] : config.policy.rules) {
    Rule rule{.name = name,
              .verdict = from.verdict,
              .levels = 0,
              .sessions = {},
              .senders = {},
              .tools = ToolSet(from.tools),
              .reason = from.reason};
    for (const std::string& level : from.levels) {
      // What is denied or asked at a level is so for all below; what is allowed is at that alone.
      rule.levels |= from.verdict == RuleVerdict::kAllow ? LevelMask{1} << levels.Of(level)
                                                         : Levels::UpTo(levels.Of(level));
    }
    if (from.levels.empty()) {
      rule.levels = Levels::UpTo(levels.highest());
    }
    for (const std::string& session : from.sessions) {
      rule.sessions.emplace_back(session);
    }
    for (const std::string& sender : from.senders) {
      rule.senders.insert(ParseSender(sender).text());
    }
    const auto index = static_cast<uint32_t>(rules_.size());
    if (rule.tools.indexable()) {
      for (const std::string& entry : rule.tools.entries()) {
        by_tool_[entry].push_back(index);
      }
    } else {
      for_many_.push_back(index);
    }
    rules_.push_back(std::move(rule));
  }
}

Level ToolRules::Unnamed(std::string_view session) const {
  // The main session is the owner's own: nobody else has a way into it but by a named message.
  return IsMainSession(session) ? levels_.highest() : unnamed_;
}

ToolDecision ToolRules::Decide(const ToolQuestion& question) const {
  const ToolFacts tool = DescribeTool(question.tool);
  ToolDecision decision;
  if (question.sender.known() && question.standing.blocked) {
    decision.level = Levels::lowest();
    Refuse(decision, "trust.blocked", "the sender is blocked");
    return decision;
  }
  if (!Placed(question, tool, decision)) {
    return decision;
  }
  if (tool.name.starts_with("group:")) {
    // It would pass for the whole group.
    Refuse(decision, "tools.name",
           fmt::format("'{}' is the name of a group, not of a tool", Shown(question.tool)));
    return decision;
  }
  if (std::string rule, reason;
      RefusedByReadOnly(question.read_only, decision.level, levels_.Name(decision.level),
                        tool.effect, rule, reason)) {
    Refuse(decision, std::move(rule), std::move(reason));
    return decision;
  }
  ByLists(question, tool, decision);
  return decision;
}

// Finds the level that counts and where the tool has to run. False: it may not run where the
// gateway would run it.
bool ToolRules::Placed(const ToolQuestion& question, const ToolFacts& tool,
                       ToolDecision& decision) const {
  const bool session_sandboxed = Place(sandbox_, question.session).sandboxed;
  // A sandbox has the lowest level that ever reached it: what a stranger left running there would
  // act with the rights of whoever comes next. On the host each call stands for itself.
  const Level kept = question.kept >= 0 ? question.kept : Unnamed(question.session);
  decision.level = !question.sender.known() ? kept
                   : session_sandboxed && question.kept >= 0
                       ? std::min(kept, question.standing.level)
                       : question.standing.level;
  if (!tool.sandboxed) {
    return true;
  }
  const bool host = !session_sandboxed && Levels::In(host_, decision.level);
  decision.required = host ? ToolPlace::kUnknown : ToolPlace::kSandbox;
  if (question.place != ToolPlace::kHost || host) {
    return true;
  }
  if (session_sandboxed) {
    Refuse(
        decision, "placement.sandboxed",
        fmt::format("'{}' runs in this session's sandbox, not on the host", Shown(question.tool)));
  } else {
    Refuse(decision, "placement.level",
           fmt::format("'{}' runs on the host in this session, which level {} may not use; give "
                       "others sessions of their own (session.dmScope: per-channel-peer)",
                       Shown(question.tool), levels_.Name(decision.level)));
  }
  return false;
}

ToolRules::Said ToolRules::AskRules(const ToolQuestion& question, const ToolFacts& tool,
                                    Level level) const {
  Said said;
  const std::string sender = question.sender.text();
  const auto ask_all = [&](std::string_view key) {
    const auto found = by_tool_.find(std::string(key));
    if (found != by_tool_.end()) {
      for (const uint32_t index : found->second) {
        AskRule(rules_[index], question, tool, sender, level, said);
      }
    }
  };
  if (!by_tool_.empty()) {
    ask_all(tool.name);
    for (const std::string& group : tool.groups) {
      ask_all(group);
    }
    if (!question.claimed_group.empty()) {
      ask_all(question.claimed_group);
    }
  }
  for (const uint32_t index : for_many_) {
    AskRule(rules_[index], question, tool, sender, level, said);
  }
  return said;
}

void ToolRules::AskRule(const Rule& rule, const ToolQuestion& question, const ToolFacts& tool,
                        const std::string& sender, Level level, Said& said) const {
  const bool allows = rule.verdict == RuleVerdict::kAllow;
  // Of those that allow, the ones for levels above count too; see the class comment of Policy.
  if (!allows && !Levels::In(rule.levels, level)) {
    return;
  }
  // The gateway's word on the group is no reason to allow what Creel knows better.
  const std::string_view claimed =
      allows && !tool.groups.empty() ? std::string_view() : question.claimed_group;
  if (!rule.tools.Has(tool, claimed)) {
    return;
  }
  if (!rule.senders.empty() && !rule.senders.contains(sender)) {
    return;
  }
  if (!rule.sessions.empty() &&
      std::none_of(rule.sessions.begin(), rule.sessions.end(), [&](const SessionPattern& pattern) {
        return pattern.Matches(question.session);
      })) {
    return;
  }
  switch (rule.verdict) {
    case RuleVerdict::kDeny:
      said.deny = said.deny == nullptr ? &rule : said.deny;
      break;
    case RuleVerdict::kAsk:
      said.ask = said.ask == nullptr ? &rule : said.ask;
      said.ask_levels |= rule.levels;
      break;
    case RuleVerdict::kAllow:
      said.allow = said.allow == nullptr ? &rule : said.allow;
      said.allow_levels |= rule.levels;
      break;
  }
}

void ToolRules::ByLists(const ToolQuestion& question, const ToolFacts& tool,
                        ToolDecision& decision) const {
  const Level level = decision.level;
  const Said said = AskRules(question, tool, level);
  const auto by_rule = [&](const Rule& rule, std::string_view otherwise) {
    return rule.reason.empty() ? fmt::format("the rule '{}' {} '{}'", Printable(rule.name, 80),
                                             otherwise, Shown(question.tool))
                               : rule.reason;
  };
  if (said.deny != nullptr) {
    Refuse(decision, fmt::format("rules.{}", said.deny->name), by_rule(*said.deny, "denies"));
    return;
  }
  Level asks = -1;
  Level missing = -1;
  for (Level above = level; above <= levels_.highest(); ++above) {
    const OfLevel& lists = of_level_[static_cast<size_t>(above)];
    if (lists.deny.Has(tool, question.claimed_group)) {
      Refuse(decision, fmt::format("levels.{}.deny", levels_.Name(above)),
             fmt::format("'{}' is denied for level {}", Shown(question.tool), levels_.Name(level)));
      return;
    }
    const bool ask = lists.ask.Has(tool, question.claimed_group);
    asks = ask && asks < 0 ? above : asks;
    const std::string_view claimed =
        tool.groups.empty() ? question.claimed_group : std::string_view();
    // What is asked for need not be allowed besides.
    const bool allowed = ask || lists.allow.Has(tool, claimed) ||
                         Levels::In(said.allow_levels | said.ask_levels, above);
    missing = !allowed && missing < 0 ? above : missing;
  }
  if (missing >= 0) {
    Refuse(decision, fmt::format("levels.{}", levels_.Name(missing)),
           fmt::format("'{}' is not among the tools that level {} may use", Shown(question.tool),
                       levels_.Name(level)));
    return;
  }
  if (said.ask != nullptr || asks >= 0) {
    decision.verdict = Verdict::kAsk;
    decision.rule = said.ask != nullptr ? fmt::format("rules.{}", said.ask->name)
                                        : fmt::format("levels.{}.ask", levels_.Name(asks));
    decision.reason = said.ask != nullptr
                          ? by_rule(*said.ask, "wants the operator asked for")
                          : fmt::format("the operator is asked before level {} uses '{}'",
                                        levels_.Name(level), Shown(question.tool));
    return;
  }
  decision.verdict = Verdict::kAllow;
  decision.rule = said.allow != nullptr ? fmt::format("rules.{}", said.allow->name)
                                        : fmt::format("levels.{}.allow", levels_.Name(level));
  decision.reason = fmt::format("level {} may use '{}'", levels_.Name(level), Shown(question.tool));
}

}  // namespace creel
