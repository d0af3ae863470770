#pragma once

#include "creel/shim/v1/shim.pb.h"

namespace creel::shim {

// The shim's own figures, out of /proc; what the runtime does not show stays zero.
v1::GetStatusResponse SelfStatus();

}  // namespace creel::shim
