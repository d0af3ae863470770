#pragma once

#include <string>

#include "supervisor/cli/connection.h"

namespace creel::cli {

// Copies a file or a folder between the host and a sandbox; `K:/path` on one side names the
// sandbox's. Returns the exit status.
int Copy(const Globals& globals, const std::string& source, const std::string& destination);

}  // namespace creel::cli
