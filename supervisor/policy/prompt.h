#pragma once

#include <string>

#include "supervisor/config/config.h"
#include "supervisor/policy/levels.h"
#include "supervisor/policy/policy.h"

namespace creel {

// The security section for the system prompt of a session that serves `level`.
std::string WritePrompt(const Config& config, const Levels& levels, Level level,
                        const ReadOnlyFacts& read_only, bool host, const ReplyRules& replies);

}  // namespace creel
