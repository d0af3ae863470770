#pragma once

#include <cstddef>
#include <string>

#include "supervisor/base/status.h"

namespace creel {

// The first `max_bytes` of a regular file. Never waits: what the path names may be a fifo.
// kNotFound, kPermissionDenied: it cannot be opened. kInvalidArgument: it is not a file.
absl::StatusOr<std::string> ReadWholeFile(const std::string& file, size_t max_bytes);

}  // namespace creel
