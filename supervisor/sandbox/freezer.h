#pragma once

#include <string>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/engine/engine.h"
#include "supervisor/sandbox/host_abilities.h"

namespace creel {

// How the processes of a container were stopped. Each must be let go the same way: the engine does
// not know of a group that we froze.
inline constexpr char kFrozenByEngine[] = "engine";
inline constexpr char kFrozenByCgroup[] = "cgroup";
inline constexpr char kKilled[] = "killed";

// Stops all processes of a container: through the engine, which is asked again and again for a
// second (five where nothing else is left), as its pause fails now and then for a busy container;
// then through the container's control group, where that can be written; else it is killed. Returns
// which of the three it was.
//   kNotFound  there is no such container
//   kUnavailable, kDeadlineExceeded  the engine is away and the control group is out of reach
absl::StatusOr<std::string> FreezeContainer(Engine& engine, const HostAbilities& abilities,
                                            const std::string& container, Deadline deadline);

// The same with the control group tried first, which takes a millisecond. `pid` is the container's
// first process, if it is known (else 0, and the engine is asked).
absl::StatusOr<std::string> FreezeContainerQuickly(Engine& engine, const HostAbilities& abilities,
                                                   const std::string& container, int pid,
                                                   Deadline deadline);

// Lets them go on. `method` is what FreezeContainer returned.
absl::Status ThawContainer(Engine& engine, const HostAbilities& abilities,
                           const std::string& container, const std::string& method,
                           Deadline deadline);

// Kills a container that may be frozen in either way, so that the engine can remove it.
absl::Status KillFrozenContainer(Engine& engine, const HostAbilities& abilities,
                                 const std::string& container, Deadline deadline);

// The mark of a frozen sandbox on the disk: it outlives us, and says how to thaw it.
struct Hold {
  std::string method;
  std::string reason;
};
absl::Status WriteHold(const std::string& path, const Hold& hold);
// kNotFound: it is not frozen.
absl::StatusOr<Hold> ReadHold(const std::string& path);
absl::Status RemoveHold(const std::string& path);

}  // namespace creel
