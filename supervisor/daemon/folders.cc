#include "supervisor/daemon/folders.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <vector>

#include "supervisor/base/unique_fd.h"

namespace creel {

absl::Status MakeOwnFolder(const std::string& path, mode_t mode) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string above = path.substr(0, slash);
    if (::mkdir(above.c_str(), 0755) == 0) {
      // The umask is ours, and closes what is made to others.
      if (::chmod(above.c_str(), 0755) != 0) {
        return ErrnoStatus(errno, fmt::format("make the folder '{}'", above));
      }
    } else if (errno != EEXIST) {
      return ErrnoStatus(errno, fmt::format("make the folder '{}'", above));
    }
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, fmt::format("make the folder '{}'", path));
  }
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, fmt::format("open the folder '{}'", path));
  }
  if (info.st_uid != ::geteuid()) {
    return absl::PermissionDeniedError(
        fmt::format("the folder '{}' belongs to uid {}, and creeld runs as uid {}; give it to that "
                    "user, or choose another in the configuration (paths)",
                    path, info.st_uid, ::geteuid()));
  }
  if ((info.st_mode & 0022) != 0) {
    return absl::PermissionDeniedError(fmt::format(
        "others may write to the folder '{}'; move away what is in it, as it may not be ours, and "
        "take that right away (chmod go-w)",
        path));
  }
  if ((info.st_mode & 07777) != mode && ::fchmod(fd.get(), mode) != 0) {
    return ErrnoStatus(errno, fmt::format("set the mode of the folder '{}'", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> FindShim(const std::string& configured) {
  std::vector<std::string> places;
  if (!configured.empty()) {
    places.push_back(configured);
  } else {
    std::array<char, 4096> self{};
    const ssize_t length = ::readlink("/proc/self/exe", self.data(), self.size() - 1);
    if (length > 0) {
      const std::string_view program(self.data(), static_cast<size_t>(length));
      const std::string_view folder = program.substr(0, program.rfind('/'));
      places.push_back(fmt::format("{}/creel-shim", folder));
      // As `make install` puts it, wherever it was told to.
      places.push_back(fmt::format("{}/lib/creel/creel-shim", folder.substr(0, folder.rfind('/'))));
    }
    places.emplace_back("/usr/lib/creel/creel-shim");
  }
  for (const std::string& place : places) {
    struct stat info {};
    if (::stat(place.c_str(), &info) == 0 && S_ISREG(info.st_mode)) {
      return place;
    }
  }
  return absl::NotFoundError(
      fmt::format("there is no creel-shim at {}; install it there, or name its place in the "
                  "configuration (paths.shim)",
                  fmt::join(places, " or ")));
}

}  // namespace creel
