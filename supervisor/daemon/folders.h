#pragma once

#include <sys/types.h>

#include <string>

#include "supervisor/base/status.h"

namespace creel {

// Makes `path` with all above it, and checks that it is ours: a folder, no link, that belongs to
// this process's user and that nobody else may write to. Its mode becomes `mode`.
absl::Status MakeOwnFolder(const std::string& path, mode_t mode);

// The shim's binary: `configured` if it is not empty, else `creel-shim` beside this program, else
// /usr/lib/creel/creel-shim. kNotFound names the places that were looked at.
absl::StatusOr<std::string> FindShim(const std::string& configured);

}  // namespace creel
