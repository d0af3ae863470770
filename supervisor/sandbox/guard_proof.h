#pragma once

#include <functional>

#include "supervisor/base/status.h"
#include "supervisor/sandbox/frame_guard.h"

namespace creel {

// Has the gRPC of this process speak over a guarded socket, and compares what went through the
// guard with what the other end sent and got; then breaks a bound, and sees gRPC lose the
// connection and close it. kFailedPrecondition: gRPC's calls go past the guard, and no peer may be
// let in. `tamper` is for its test: it gets the descriptor before gRPC does.
absl::Status ProveGuardedCalls(FrameGuard& guard, const std::function<void(int fd)>& tamper = {});

}  // namespace creel
