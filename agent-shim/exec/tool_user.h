#pragma once

#include <sys/types.h>

#include "supervisor/base/status.h"

namespace creel::shim {

// Who every command runs as.
struct ToolUser {
  uid_t uid = 0;
  gid_t gid = 0;
};

// While it lives, what this thread makes (pipes, terminals) belongs to the tool user, as a command
// that opens its own /dev/stderr again needs. Only the file-system identity changes, which does not
// open this thread to signals or limits from the tools; a runtime without that (gVisor) gets the
// effective one. Does nothing where the process is not root.
class AsToolUser {
 public:
  explicit AsToolUser(const ToolUser& user);
  ~AsToolUser();
  AsToolUser(const AsToolUser&) = delete;
  AsToolUser& operator=(const AsToolUser&) = delete;

  // Whether the identity was taken.
  [[nodiscard]] const absl::Status& status() const { return status_; }

 private:
  enum class How { kNothing, kFileSystem, kEffective };
  How how_ = How::kNothing;
  absl::Status status_;
};

}  // namespace creel::shim
