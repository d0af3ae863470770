#include "supervisor/daemon/notify.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string_view>

#include "supervisor/base/unique_fd.h"

namespace creel {

absl::Status NotifyServiceManager(const std::string& state) {
  const char* const where = std::getenv("NOTIFY_SOCKET");
  if (where == nullptr || *where == '\0') {
    return absl::OkStatus();
  }
  const std::string_view path = where;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@')) {
    return absl::InvalidArgumentError(
        fmt::format("$NOTIFY_SOCKET is not a socket's address: '{}'", path));
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  if (path[0] == '@') {
    address.sun_path[0] = '\0';
  }
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid() || ::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                              reinterpret_cast<const sockaddr*>(&address), length) < 0) {
    return ErrnoStatus(errno, fmt::format("tell the service manager '{}'", state));
  }
  return absl::OkStatus();
}

}  // namespace creel
