#pragma once

#include <string>

#include "supervisor/base/status.h"

namespace creel {

// Tells the service manager that started us, such as "READY=1" (sd_notify(3)). Without one
// ($NOTIFY_SOCKET is unset) nothing happens.
absl::Status NotifyServiceManager(const std::string& state);

}  // namespace creel
