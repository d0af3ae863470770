#include "supervisor/config/read_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "supervisor/base/unique_fd.h"

namespace creel {

absl::StatusOr<std::string> ReadWholeFile(const std::string& file, size_t max_bytes) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open the configuration '{}'", file));
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, fmt::format("look at the configuration '{}'", file));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("the configuration '{}' is not a file", file));
  }
  std::string text;
  std::array<char, 16384> buffer;
  while (text.size() < max_bytes) {
    const ssize_t got =
        ::read(fd.get(), buffer.data(), std::min(buffer.size(), max_bytes - text.size()));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return ErrnoStatus(errno, fmt::format("read the configuration '{}'", file));
    }
    if (got == 0) {
      break;
    }
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return text;
}

}  // namespace creel
