#pragma once

#include <memory>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/sandbox/sandbox.h"

namespace creel {

// The PooledSandbox that is a container. `identity` has been judged. What was made is left for
// Sandbox::Remove, on failure too.
absl::StatusOr<std::unique_ptr<PooledSandbox>> MakePooledContainer(const Sandbox::Host& host,
                                                                   SandboxIdentity& identity,
                                                                   Deadline deadline);

}  // namespace creel
