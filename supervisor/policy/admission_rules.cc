#include "supervisor/policy/admission_rules.h"

#include <fmt/format.h>
#include <re2/re2.h>
#include <re2/set.h>

#include <algorithm>
#include <utility>

#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kMaxMentionText = 4096;
constexpr int64_t kPatternMemory = 16 << 20;

RE2::Options MentionOptions() {
  RE2::Options options;
  options.set_case_sensitive(false);
  options.set_log_errors(false);
  options.set_max_mem(kPatternMemory);
  return options;
}

// "FILE:LINE: " of a key, where it is known.
std::string PlaceOf(const Config& config, const std::string& key) {
  const auto origin = config.provenance.origins.find(key);
  return origin == config.provenance.origins.end()
             ? std::string()
             : fmt::format("{}:{}: ", origin->second.file, origin->second.line);
}

AdmitDecision Answer(AdmitVerdict verdict, std::string rule, std::string reason) {
  return {.verdict = verdict, .rule = std::move(rule), .reason = std::move(reason)};
}

}  // namespace

struct MentionPatterns::Impl {
  Impl() : set(MentionOptions(), RE2::UNANCHORED) {}
  RE2::Set set;
  std::vector<std::unique_ptr<RE2>> each;
  bool usable = false;
};

MentionPatterns::MentionPatterns(const std::vector<std::string>& patterns)
    : impl_(std::make_unique<Impl>()) {
  for (const std::string& pattern : patterns) {
    auto one = std::make_unique<RE2>(pattern, MentionOptions());
    if (one->ok() && impl_->set.Add(pattern, nullptr) >= 0) {
      impl_->each.push_back(std::move(one));
    }
  }
  impl_->usable = !impl_->each.empty() && impl_->set.Compile();
}

MentionPatterns::~MentionPatterns() = default;
MentionPatterns::MentionPatterns(MentionPatterns&&) noexcept = default;
MentionPatterns& MentionPatterns::operator=(MentionPatterns&&) noexcept = default;

bool MentionPatterns::Match(std::string_view text) const {
  const re2::StringPiece piece(text.data(), std::min(text.size(), kMaxMentionText));
  if (impl_->each.empty()) {
    return false;
  }
  std::vector<int> which;
  RE2::Set::ErrorInfo error{};
  if (impl_->usable && impl_->set.Match(piece, &which, &error)) {
    return true;
  }
  if (impl_->usable && error.kind == RE2::Set::kNoError) {
    return false;
  }
  // All together they took more memory than they may; one by one they do not.
  return std::any_of(impl_->each.begin(), impl_->each.end(),
                     [&](const auto& one) { return RE2::PartialMatch(piece, *one); });
}

absl::StatusOr<AdmissionRules> AdmissionRules::Compile(const Config& config, const Levels& levels) {
  AdmissionRules rules(levels);
  RETURN_IF_ERROR(rules.AddMembers(config));
  RETURN_IF_ERROR(rules.AddChannels(config));
  for (Level level = levels.highest(); level >= Levels::lowest(); --level) {
    // A level may what all above it may, too.
    if (!config.policy.levels.at(levels.Name(level)).commands) {
      break;
    }
    rules.commands_ |= LevelMask{1} << level;
  }
  return rules;
}

absl::Status AdmissionRules::AddMembers(const Config& config) {
  for (const auto& [name, level] : config.policy.levels) {
    const std::string key = fmt::format("levels.{}.members", name);
    for (const std::string& entry : level.members) {
      const SenderId sender = ParseSender(entry);
      const auto [there, fresh] = members_.emplace(
          sender.text(), Member{levels_.Of(name), fmt::format("stands in {}", key)});
      if (!fresh && there->second.level != levels_.Of(name)) {
        return absl::InvalidArgumentError(
            fmt::format("{}'{}' names {}, who {} too; a sender has one level", PlaceOf(config, key),
                        key, Printable(entry, 120), there->second.why));
      }
    }
  }
  for (const std::string& entry : config.policy.blocked) {
    blocked_.insert(ParseSender(entry).text());
  }
  return absl::OkStatus();
}

absl::Status AdmissionRules::AddChannels(const Config& config) {
  const auto senders = [](const std::string& channel, const std::vector<std::string>& entries,
                          std::unordered_set<std::string>& out) {
    bool anybody = false;
    for (const std::string& entry : entries) {
      if (entry == "*") {
        anybody = true;
      } else {
        out.insert(ParseSenderOf(channel, entry).text());
      }
    }
    return anybody;
  };
  const auto patterns = [&](const std::vector<std::string>& own) {
    std::vector<std::string> all = config.policy.mention_patterns;
    all.insert(all.end(), own.begin(), own.end());
    return std::make_shared<const MentionPatterns>(all);
  };
  const std::shared_ptr<const MentionPatterns> common = patterns({});
  any_channel_.name = "*";
  any_channel_.mentions = common;
  for (const auto& [given_name, from] : config.policy.channels) {
    const std::string name = NormalChannel(given_name);
    Channel channel{
        .name = given_name,
        .dm_policy = from.dm_policy,
        .anybody = false,
        .group_policy = from.group_policy,
        .anybody_in_groups = false,
        .group_senders = {},
        .groups = {},
        .mentions = from.mention_patterns.empty() ? common : patterns(from.mention_patterns)};
    const std::string key = fmt::format("channels.{}.allow_from", given_name);
    for (const std::string& entry : from.allow_from) {
      if (entry == "*") {
        channel.anybody = true;
      } else if (name != "*") {
        // Whoever has a level of their own keeps it.
        members_.emplace(ParseSenderOf(name, entry).text(),
                         Member{levels_.Of(kFriend), fmt::format("stands in {}", key)});
      } else {
        members_.emplace(ParseSender(entry).text(),
                         Member{levels_.Of(kFriend), fmt::format("stands in {}", key)});
      }
    }
    channel.anybody_in_groups = senders(name, from.group_allow_from, channel.group_senders);
    for (const auto& [id, group_from] : from.groups) {
      Group group{.require_mention = group_from.require_mention,
                  .own_senders = !group_from.allow_from.empty(),
                  .anybody = false,
                  .senders = {}};
      group.anybody = senders(name, group_from.allow_from, group.senders);
      channel.groups.emplace(NormalGroup(id), std::move(group));
    }
    if (name == "*") {
      any_channel_ = std::move(channel);
    } else if (!channels_.emplace(name, std::move(channel)).second) {
      return absl::InvalidArgumentError(fmt::format(
          "'channels.{}' is the channel '{}', which stands there under another name too",
          Printable(given_name, 80), name));
    }
  }
  return absl::OkStatus();
}

const AdmissionRules::Channel& AdmissionRules::ChannelOf(const std::string& name) const {
  const auto found = channels_.find(name);
  return found == channels_.end() ? any_channel_ : found->second;
}

Standing AdmissionRules::StandingOf(const SenderId& sender, std::string_view paired) const {
  Standing standing{.level = Levels::lowest(), .blocked = false, .why = "is not known"};
  const std::string name = sender.text();
  if (name.empty()) {
    return standing;
  }
  if (blocked_.contains(name)) {
    standing.blocked = true;
    standing.why = "stands in trust.blocked";
    return standing;
  }
  if (const auto member = members_.find(name); member != members_.end()) {
    standing.level = member->second.level;
    standing.why = member->second.why;
  } else if (!paired.empty() && levels_.Has(paired)) {
    // Owners are made by the configuration alone.
    standing.level = std::min(levels_.Of(paired), levels_.highest() - 1);
    standing.why = "was paired";
  }
  return standing;
}

AdmitDecision AdmissionRules::Admit(const AdmitFacts& facts) const {
  if (!facts.sender.known()) {
    return Answer(AdmitVerdict::kDeny, "admission.unknown-sender",
                  "a message without a sender does not reach the model");
  }
  if (facts.standing.blocked) {
    return Answer(AdmitVerdict::kDeny, "trust.blocked", "the sender is blocked");
  }
  const Channel& channel = ChannelOf(facts.sender.channel);
  AdmitDecision decision =
      facts.is_group ? AdmitGroup(facts, channel) : AdmitDirect(facts, channel);
  if (decision.verdict == AdmitVerdict::kAdmit && facts.is_command &&
      !Levels::In(commands_, facts.standing.level)) {
    return Answer(AdmitVerdict::kDeny, "admission.command",
                  fmt::format("level {} may not give commands to the gateway",
                              levels_.Name(facts.standing.level)));
  }
  return decision;
}

AdmitDecision AdmissionRules::AdmitDirect(const AdmitFacts& facts, const Channel& channel) const {
  if (channel.dm_policy == DmPolicy::kDisabled) {
    return Answer(AdmitVerdict::kDeny, "admission.dm-disabled",
                  "this channel takes no direct messages");
  }
  if (facts.standing.level > Levels::lowest()) {
    return Answer(AdmitVerdict::kAdmit, "admission.known",
                  fmt::format("the sender {}", facts.standing.why));
  }
  switch (channel.dm_policy) {
    case DmPolicy::kPairing:
      return Answer(AdmitVerdict::kPair, "admission.pairing",
                    "an unknown sender has to be approved by the operator first");
    case DmPolicy::kOpen:
      if (channel.anybody) {
        return Answer(AdmitVerdict::kAdmit, "admission.open", "this channel is open to everybody");
      }
      return Answer(AdmitVerdict::kDeny, "admission.open-without-star",
                    "dm_policy is open, and allow_from does not say \"*\"");
    case DmPolicy::kAllowlist:
    case DmPolicy::kDisabled:
      break;
  }
  return Answer(AdmitVerdict::kDeny, "admission.allowlist", "the sender is not on the list");
}

AdmitDecision AdmissionRules::AdmitGroup(const AdmitFacts& facts, const Channel& channel) const {
  if (channel.group_policy == GroupPolicy::kDisabled) {
    return Answer(AdmitVerdict::kIgnore, "admission.groups-disabled",
                  "this channel takes no group messages");
  }
  auto found = channel.groups.find(NormalGroup(facts.chat_id));
  if (found == channel.groups.end()) {
    found = channel.groups.find("*");
  }
  const bool listed = found != channel.groups.end();
  const bool any_group = channel.group_policy == GroupPolicy::kOpen && channel.groups.empty();
  if (!listed && !any_group) {
    return Answer(AdmitVerdict::kIgnore, "admission.group-unlisted",
                  "the group is not on the list");
  }
  static const Group& kDefaults = *new Group;
  const Group& group = listed ? found->second : kDefaults;
  if (facts.standing.level == Levels::lowest()) {
    const std::string name = facts.sender.text();
    const bool may = group.own_senders
                         ? group.anybody || group.senders.contains(name)
                         : channel.group_policy == GroupPolicy::kOpen ||
                               channel.anybody_in_groups || channel.group_senders.contains(name);
    if (!may) {
      return Answer(AdmitVerdict::kIgnore, "admission.group-sender",
                    "the sender may not speak to the model in this group");
    }
  }
  if (group.require_mention && !facts.native_mention && !channel.mentions->Match(facts.text)) {
    return Answer(AdmitVerdict::kIgnore, "admission.unmentioned",
                  "the message does not mention the gateway");
  }
  return Answer(AdmitVerdict::kAdmit, "admission.group", "the group and its sender are allowed");
}

}  // namespace creel
