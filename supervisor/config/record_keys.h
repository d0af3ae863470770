#pragma once

#include <vector>

#include "supervisor/config/key_table.h"

namespace creel {

// The keys of the sections `audit` and `incident`, in the order of the documentation.
std::vector<KeySpec> RecordKeys();

}  // namespace creel
