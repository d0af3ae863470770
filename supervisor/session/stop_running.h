#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "supervisor/base/clock.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Ends everything that runs in the sandboxes of the sessions that `which` picks, background
// processes included; the sandboxes stay. Returns how many commands that was. Blocks, at most until
// `deadline`.
uint32_t StopRunning(SessionManager& sessions,
                     const std::function<bool(const std::string& session)>& which,
                     Deadline deadline);

}  // namespace creel
