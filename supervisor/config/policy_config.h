#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace creel {

// Names of the levels that are always there, and their ranks. Others stand in between.
inline constexpr char kOwner[] = "owner";
inline constexpr char kFriend[] = "friend";
inline constexpr char kStranger[] = "stranger";
inline constexpr uint32_t kOwnerRank = 100;
inline constexpr uint32_t kFriendRank = 50;
inline constexpr uint32_t kStrangerRank = 0;

// What a sandbox of one trust level may use; 0: as sandbox.limits says.
struct LevelLimits {
  uint64_t memory_bytes = 0;
  double cpus = 0;
  uint32_t pids = 0;
  bool operator==(const LevelLimits&) const = default;
};

// What the senders of one trust level may do. A level never may more than the ones above it,
// whatever stands here: see supervisor/policy/policy.h.
struct LevelConfig {
  uint32_t rank = 0;                 // 100: owner, 50: friend, 0: stranger
  std::vector<std::string> members;  // `channel:id`
  std::vector<std::string> allow;    // tools and groups; what is not named is denied
  std::vector<std::string> ask;
  std::vector<std::string> deny;
  bool host = false;  // its tools may run on the host, in the main session
  bool read_only = false;
  bool commands = false;  // may give commands to the gateway
  bool keys = false;      // replies may hold key-shaped strings
  bool paths = false;     // replies may hold paths of the host
  bool listings = false;  // replies may hold directory listings
  LevelLimits limits;
  bool operator==(const LevelConfig&) const = default;
};

enum class DmPolicy { kPairing, kAllowlist, kOpen, kDisabled };
enum class GroupPolicy { kAllowlist, kOpen, kDisabled };

struct GroupConfig {
  bool require_mention = true;
  std::vector<std::string> allow_from;  // empty: as the channel says
  bool operator==(const GroupConfig&) const = default;
};

struct ChannelConfig {
  DmPolicy dm_policy = DmPolicy::kPairing;
  std::vector<std::string> allow_from;  // friends; `*` with kOpen: everybody
  GroupPolicy group_policy = GroupPolicy::kAllowlist;
  std::vector<std::string> group_allow_from;
  std::map<std::string, GroupConfig> groups;  // by id; `*`: any other
  std::vector<std::string> mention_patterns;
  std::string own_id;  // the gateway's own id there
  bool operator==(const ChannelConfig&) const = default;
};

enum class RuleVerdict { kDeny, kAsk, kAllow };

// A rule beside those of the levels. An empty list of levels, sessions or senders means any; an
// empty list of tools none.
struct RuleConfig {
  std::vector<std::string> levels;
  std::vector<std::string> sessions;  // a `*` stands for any text
  std::vector<std::string> senders;
  std::vector<std::string> tools;
  RuleVerdict verdict = RuleVerdict::kDeny;
  std::string reason;
  bool operator==(const RuleConfig&) const = default;
};

enum class OnSecret { kRedact, kDeny };

struct PolicyConfig {
  PolicyConfig();

  std::map<std::string, LevelConfig> levels;      // always holds the three
  std::map<std::string, ChannelConfig> channels;  // `*`: any other
  std::map<std::string, RuleConfig> rules;
  std::vector<std::string> blocked;  // never admitted, no tool
  // The level of a sandbox that no named sender has reached.
  std::string unnamed = kFriend;
  std::vector<std::string> mention_patterns;
  bool read_only = false;

  std::chrono::seconds pairing_lifetime{3600};
  uint32_t pairing_pending = 3;
  std::chrono::seconds approval_timeout{300};

  OnSecret on_secret = OnSecret::kRedact;
  std::vector<std::string> secret_files;  // whose content never leaves
  std::vector<std::string> host_paths;    // told to nobody, besides the usual ones
  bool operator==(const PolicyConfig&) const = default;
};

}  // namespace creel
