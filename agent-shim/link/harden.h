#pragma once

#include "supervisor/base/status.h"

namespace creel::shim {

// Makes this process what PID 1 of a sandbox has to be, before it has threads: not dumpable, so that
// no tool can trace or read it; without the environment that the image gave it, inherited
// descriptors, core dumps or a way to new privileges; of the capabilities only SETUID, SETGID and
// KILL in use, and none that a child inherits; all signals at their default and SIGTERM and SIGCHLD
// blocked, to be read from descriptors. An error means that the process must not go on.
absl::Status Harden();

}  // namespace creel::shim
