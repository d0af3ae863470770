#pragma once

#include <vector>

#include "supervisor/config/key_table.h"

namespace creel {

// The keys of the section `egress`, in the order of the documentation.
std::vector<KeySpec> EgressKeys();

// What no single key of the section can know; nothing if it is sound.
KeyError CheckEgress(const Config& config);

}  // namespace creel
