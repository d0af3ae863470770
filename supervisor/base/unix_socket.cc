#include "supervisor/base/unix_socket.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace creel {
namespace {

// Newer than the packaged headers.
constexpr int kSoPassRights = 83;

absl::StatusOr<UniqueFd> OpenDirectory(const UnixAddress& address) {
  UniqueFd directory(open(address.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", address.directory));
  }
  return directory;
}

// Removes a socket of this name, and nothing else.
absl::Status RemoveOld(int directory, const UnixAddress& address) {
  struct stat info;
  if (fstatat(directory, address.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT
               ? absl::OkStatus()
               : ErrnoStatus(errno, fmt::format("stat '{}/{}'", address.directory, address.name));
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::AlreadyExistsError(
        fmt::format("'{}/{}' is there and is not a socket", address.directory, address.name));
  }
  if (unlinkat(directory, address.name.c_str(), 0) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, fmt::format("remove '{}/{}'", address.directory, address.name));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PeerCredentials> CredentialsOf(int socket) {
  ucred found = {};
  socklen_t size = sizeof(found);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &found, &size) != 0) {
    return ErrnoStatus(errno, "read the peer's credentials");
  }
  return PeerCredentials{found.pid, found.uid, found.gid};
}

absl::StatusOr<UniqueFd> ListenUnix(const UnixAddress& address, int backlog) {
  const std::string path = fmt::format("{}/{}", address.directory, address.name);
  ASSIGN_OR_RETURN(const UniqueFd directory, OpenDirectory(address));
  RETURN_IF_ERROR(RemoveOld(directory.get(), address));
  UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener.valid()) {
    return ErrnoStatus(errno, "socket");
  }
  const int no = 0;
  setsockopt(listener.get(), SOL_SOCKET, kSoPassRights, &no, sizeof(no));
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  // An address holds 107 bytes; by way of the directory's descriptor any path fits.
  const std::string bound = path.size() < sizeof(name.sun_path)
                                ? path
                                : fmt::format("/proc/self/fd/{}/{}", directory.get(), address.name);
  if (bound.size() >= sizeof(name.sun_path)) {
    return absl::InvalidArgumentError(fmt::format("socket name '{}' is too long", address.name));
  }
  std::memcpy(name.sun_path, bound.data(), bound.size());
  // The file gets the socket's own mode, so it is never open to more than its owner.
  if (fchmod(listener.get(), 0600) != 0) {
    return ErrnoStatus(errno, "fchmod");
  }
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    return ErrnoStatus(errno, fmt::format("bind '{}'", path));
  }
  absl::Status opened;
  if (listen(listener.get(), backlog) != 0) {
    opened = ErrnoStatus(errno, fmt::format("listen on '{}'", path));
  } else if ((address.owner.has_value() || address.group.has_value()) &&
             fchownat(directory.get(), address.name.c_str(),
                      address.owner.value_or(static_cast<uid_t>(-1)),
                      address.group.value_or(static_cast<gid_t>(-1)), AT_SYMLINK_NOFOLLOW) != 0) {
    opened = ErrnoStatus(errno, fmt::format("change the owner of '{}'", path));
  } else if (address.mode != 0600 &&
             fchmodat(directory.get(), address.name.c_str(), address.mode, 0) != 0) {
    opened = ErrnoStatus(errno, fmt::format("change the mode of '{}'", path));
  }
  if (!opened.ok()) {
    unlinkat(directory.get(), address.name.c_str(), 0);
    return opened;
  }
  return listener;
}

void RemoveUnix(const UnixAddress& address) {
  absl::StatusOr<UniqueFd> directory = OpenDirectory(address);
  if (directory.ok()) {
    RemoveOld(directory->get(), address).IgnoreError();
  }
}

}  // namespace creel
