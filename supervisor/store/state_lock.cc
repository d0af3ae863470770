#include "supervisor/store/state_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace creel {

absl::StatusOr<StateLock> StateLock::Take(const std::string& directory) {
  const std::string path = directory + "/creel.lock";
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open the lock '{}'", path));
  }
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return ErrnoStatus(errno, fmt::format("lock '{}'", path));
    }
    std::array<char, 16> text{};
    const ssize_t got = ::pread(fd.get(), text.data(), text.size() - 1, 0);
    const long pid = got > 0 ? std::strtol(text.data(), nullptr, 10) : 0;
    return absl::FailedPreconditionError(fmt::format(
        "another creeld{} works with '{}'; stop it first, or give this one folders of its own "
        "(paths.run_dir, paths.state_dir)",
        pid > 0 ? fmt::format(" (pid {})", pid) : "", directory));
  }
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoStatus(errno, fmt::format("write '{}'", path));
  }
  return StateLock(std::move(fd));
}

}  // namespace creel
