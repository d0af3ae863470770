#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/policy/levels.h"
#include "supervisor/policy/policy.h"

namespace creel {

// Patterns by which a text mentions the gateway, matched together in linear time.
class MentionPatterns {
 public:
  // Patterns have been checked with the configuration.
  explicit MentionPatterns(const std::vector<std::string>& patterns);
  ~MentionPatterns();
  MentionPatterns(MentionPatterns&&) noexcept;
  MentionPatterns& operator=(MentionPatterns&&) noexcept;
  // Looks at the first 4096 bytes.
  [[nodiscard]] bool Match(std::string_view text) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Who is who, and which messages reach the model. Part of Policy.
class AdmissionRules {
 public:
  static absl::StatusOr<AdmissionRules> Compile(const Config& config, const Levels& levels);

  [[nodiscard]] Standing StandingOf(const SenderId& sender, std::string_view paired) const;
  [[nodiscard]] AdmitDecision Admit(const AdmitFacts& facts) const;

 private:
  struct Group {
    bool require_mention = true;
    bool own_senders = false;  // `senders` count instead of the channel's
    bool anybody = false;
    std::unordered_set<std::string> senders;
  };
  struct Channel {
    std::string name;
    DmPolicy dm_policy = DmPolicy::kPairing;
    bool anybody = false;  // allow_from holds `*`
    GroupPolicy group_policy = GroupPolicy::kAllowlist;
    bool anybody_in_groups = false;
    std::unordered_set<std::string> group_senders;
    std::unordered_map<std::string, Group> groups;
    std::shared_ptr<const MentionPatterns> mentions;
  };
  struct Member {
    Level level = 0;
    std::string why;
  };

  explicit AdmissionRules(const Levels& levels) : levels_(levels) {}
  absl::Status AddMembers(const Config& config);
  absl::Status AddChannels(const Config& config);
  [[nodiscard]] const Channel& ChannelOf(const std::string& name) const;
  [[nodiscard]] AdmitDecision AdmitDirect(const AdmitFacts& facts, const Channel& channel) const;
  [[nodiscard]] AdmitDecision AdmitGroup(const AdmitFacts& facts, const Channel& channel) const;

  Levels levels_;
  LevelMask commands_ = 0;  // levels that may give commands
  std::unordered_map<std::string, Member> members_;
  std::unordered_set<std::string> blocked_;
  std::unordered_map<std::string, Channel> channels_;
  Channel any_channel_;
};

}  // namespace creel
