#pragma once

#include <string>

#include "supervisor/base/status.h"
#include "supervisor/engine/api_version.h"
#include "supervisor/engine/container_config.h"
#include "supervisor/engine/engine.h"

namespace creel {

// The body of the engine's "create a container" for `config`. What the engine's words leave out:
// - A bind has no nosuid or nodev of its own, but takes over the flags that the source's mount has
//   on the host. Whoever mounts a source sets them there. For any other source no-new-privileges
//   takes the effect off setuid files, and the engine's device rules that off device nodes.
// - The source of a bind is never made where it is missing; the engine refuses to start.
// - /dev/shm is mounted nosuid, nodev and noexec by the engine itself.
// kInvalidArgument: `config` is not complete or contradicts itself. kFailedPrecondition: this API
// version cannot do what it asks for.
absl::StatusOr<std::string> ToEngineJson(const ContainerConfig& config, ApiVersion version);
// The body of "update a container".
std::string ToEngineJson(const ContainerLimits& limits);

}  // namespace creel
