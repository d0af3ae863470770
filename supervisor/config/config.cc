#include "supervisor/config/config.h"

#include <algorithm>

namespace creel {

const std::vector<std::string> kConcessions{
    "no-sized-workspace", "no-idmap",      "tool-root",       "gateway-is-operator",
    "no-apparmor",        "no-seccomp",    "mode-off",        "rootless-engine",
    "userns-remap",       "no-blkio",      "no-pids-limit",   "no-memory-limit",
    "egress-no-tls",      "egress-no-sni", "page-on-network",
};

PolicyConfig::PolicyConfig() {
  LevelConfig& owner = levels[kOwner];
  owner.rank = kOwnerRank;
  owner.allow = {"*"};
  owner.host = owner.commands = owner.keys = owner.paths = owner.listings = true;
  LevelConfig& friends = levels[kFriend];
  friends.rank = kFriendRank;
  friends.allow = {"group:runtime", "group:fs", "web_search", "session_status"};
  friends.ask = {"group:messaging"};
  levels[kStranger].rank = kStrangerRank;
}

void FitToMemory(LimitsConfig& limits) {
  if (limits.tmp_bytes + limits.run_bytes + limits.shm_bytes <= limits.memory_bytes / 2) {
    return;
  }
  limits.tmp_bytes = std::min(limits.tmp_bytes, limits.memory_bytes / 4);
  limits.run_bytes = std::min(limits.run_bytes, limits.memory_bytes / 8);
  limits.shm_bytes = std::min(limits.shm_bytes, limits.memory_bytes / 8);
}

}  // namespace creel
