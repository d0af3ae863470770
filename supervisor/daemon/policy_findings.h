#pragma once

#include <vector>

#include "supervisor/config/config.h"
#include "supervisor/sandbox/host_abilities.h"

namespace creel {

// What is weaker in the policy than it should be, and which of its files others can read or change.
// One finding each; a single good one if there is nothing. Looks at the files' owners and modes,
// and at nothing else.
std::vector<Finding> PolicyFindings(const Config& config);

}  // namespace creel
