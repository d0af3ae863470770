#pragma once

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/container_config.h"
#include "supervisor/engine/engine.h"
#include "supervisor/sandbox/host_abilities.h"

namespace creel {

// Looks from the host at the container as it runs, and compares it with what was asked for: filter,
// no-new-privileges, capabilities, memory, swap and process limits, flags of its mounts. An engine
// or runtime that quietly gives less is found out before any tool runs. Checks what can be seen
// from here: all of it as the host's root, the limits where control groups can be read. Also sets
// the block I/O weight where the engine could not.
//   kFailedPrecondition  something is weaker than asked, and no concession names it
absl::Status CheckContainer(const ContainerInfo& info, const ContainerConfig& asked,
                            const HostAbilities& abilities, const Config& config);

// Whether process `info.pid` is this container's as seen from here.
bool SeesProcessOf(const ContainerInfo& info);

// Bytes in use on the file system that the container has at `folder`; 0: unknown. No link that the
// container made is followed out of it.
uint64_t BytesUsedAt(const ContainerInfo& info, const std::string& folder);

}  // namespace creel
