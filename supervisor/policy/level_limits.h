#pragma once

#include "supervisor/config/config.h"
#include "supervisor/policy/levels.h"

namespace creel {

// What a sandbox of this level may use: `base` (sandbox.limits), with memory, processors and
// processes as the level says, and of none more than a level above it gets.
LimitsConfig LimitsAt(const PolicyConfig& policy, const LimitsConfig& base, const Levels& levels,
                      Level level);

// Whether two agree in what can be changed of a container that runs: memory, processors, processes.
bool SameLiveLimits(const LimitsConfig& a, const LimitsConfig& b);

}  // namespace creel
