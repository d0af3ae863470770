#include "supervisor/policy/level_limits.h"

#include <algorithm>

namespace creel {

LimitsConfig LimitsAt(const PolicyConfig& policy, const LimitsConfig& base, const Levels& levels,
                      Level level) {
  LimitsConfig limits = base;
  for (Level above = levels.highest(); above >= level; --above) {
    const LevelLimits& own = policy.levels.at(levels.Name(above)).limits;
    const uint64_t memory = own.memory_bytes != 0 ? own.memory_bytes : base.memory_bytes;
    const double cpus = own.cpus != 0 ? own.cpus : base.cpus;
    const uint32_t pids = own.pids != 0 ? own.pids : base.pids;
    const bool first = above == levels.highest();
    limits.memory_bytes = first ? memory : std::min(limits.memory_bytes, memory);
    limits.cpus = first ? cpus : std::min(limits.cpus, cpus);
    limits.pids = first ? pids : std::min(limits.pids, pids);
  }
  return limits;
}

bool SameLiveLimits(const LimitsConfig& a, const LimitsConfig& b) {
  return a.memory_bytes == b.memory_bytes && a.cpus == b.cpus && a.pids == b.pids;
}

}  // namespace creel
