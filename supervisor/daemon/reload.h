#pragma once

#include <string>
#include <vector>

#include "supervisor/config/config.h"

namespace creel {

// The sections of the configuration in which `fresh` differs from `running` and that count only
// after a restart. `sessions` and `log.level` are never among them.
std::vector<std::string> NeedRestart(const Config& running, const Config& fresh);

// Whether a sandbox of the trust level `level` that has `limits` would get others if it were made
// under `fresh`.
bool WouldGetOtherLimits(const LimitsConfig& limits, const std::string& level, const Config& fresh);

}  // namespace creel
