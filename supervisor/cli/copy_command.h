#pragma once

#include <cstdint>
#include <string>

#include "supervisor/cli/connection.h"

namespace creel::cli {

struct CopyOptions {
  // `K:/path` on one side names the sandbox's; `-` on the other stands for a tar stream.
  std::string source;
  std::string destination;
  // A copy to the host that would have more bytes is refused: a sandbox can name sparse files of
  // any size.
  uint64_t max_bytes = uint64_t{16} << 30;
};

// Copies a file or a folder between the host and a sandbox. Returns the exit status.
int Copy(const Globals& globals, const CopyOptions& options);

}  // namespace creel::cli
