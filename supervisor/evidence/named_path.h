#pragma once

#include <string>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// Opens what an absolute path of the host names, with O_PATH, following only links that nobody else
// can have made: they lie where root or Creel's user alone may write, from "/" on, and are theirs.
// From the first folder on that others may write, and at the end of the path, no link is followed.
// The error tells which part of the path it was.
absl::StatusOr<UniqueFd> OpenNamed(const std::string& path);

// What such a descriptor stands for, to be read. Waits for nothing; does not open what is neither a
// file nor a folder (kInvalidArgument).
absl::StatusOr<UniqueFd> OpenToRead(int named);

}  // namespace creel
