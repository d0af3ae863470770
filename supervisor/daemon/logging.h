#pragma once

#include "supervisor/config/config.h"

namespace creel {

// Sends what is logged to standard error: with time and level for people, or, where `config` says
// so or standard error is systemd's journal, with the journal's priority in front.
void StartLogging(const LogConfig& config);

// trace, debug, info, warn, error or off, from now on.
void SetLogLevel(const std::string& level);

}  // namespace creel
