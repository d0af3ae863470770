#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>

#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// A file that every process of `misbehave` holds a lock on.
class Mark {
 public:
  Mark() {
    char path[] = "/tmp/creel-mark-XXXXXX";
    const UniqueFd fd(mkostemp(path, O_CLOEXEC));
    path_ = path;
  }
  ~Mark() { unlink(path_.c_str()); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  // Whether a process lives that holds it.
  [[nodiscard]] bool held() const {
    const UniqueFd fd(open(path_.c_str(), O_RDWR | O_CLOEXEC));
    return flock(fd.get(), LOCK_EX | LOCK_NB) != 0;
  }

 private:
  std::string path_;
};

}  // namespace creel::shim
