#pragma once

#include <string>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// Holds `directory`/creel.lock, so that only one supervisor works with a state folder. The kernel
// lets go of it when the process ends, however it ends.
class StateLock {
 public:
  // kFailedPrecondition: another process holds it; the message names its pid.
  static absl::StatusOr<StateLock> Take(const std::string& directory);

 private:
  explicit StateLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace creel
