#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/base/status.h"

namespace creel {

struct BundleReport {
  bool sound = false;
  std::string problem;  // what is wrong, as a sentence; names the member where that can be told
  uint64_t members = 0;
  uint64_t bytes = 0;
  std::string key_id;
  std::string incident;
  std::string made_at;
  std::vector<std::string> left_out;
};

// Whether a bundle is, byte for byte, what the holder of `public_key` (32 bytes) sealed. Nothing
// of it is written anywhere. A Status is returned only where it cannot be read.
absl::StatusOr<BundleReport> VerifyBundle(const std::string& path, const std::string& public_key);

}  // namespace creel
