#pragma once

#include <string>

#include "supervisor/base/status.h"

namespace creel {

// A copy of the shim's binary by which containers were or will be made.
struct StoredShim {
  std::string path;    // <state>/shim/<sha256>/creel-shim
  std::string sha256;  // hex
};

// Copies `binary` to <state_dir>/shim/<sha256>/creel-shim (mode 0755 in a directory of its own, as
// containers mount the directory) unless it is there. Sandboxes that were made with another build
// keep theirs over an upgrade, and a container never sees the file that an upgrade replaces.
// kNotFound: there is no such binary.
absl::StatusOr<StoredShim> StoreShim(const std::string& binary, const std::string& state_dir);

}  // namespace creel
