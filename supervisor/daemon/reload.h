#pragma once

#include <string>
#include <vector>

#include "supervisor/config/config.h"

namespace creel {

// The sections of the configuration in which `fresh` differs from `running` and that count only
// after a restart. `sessions` and `log.level` are never among them.
std::vector<std::string> NeedRestart(const Config& running, const Config& fresh);

}  // namespace creel
