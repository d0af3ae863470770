#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// Who is at the other end of a Unix socket, as the kernel saw it when it connected.
struct PeerCredentials {
  pid_t pid = 0;  // 0 if it is not of a process that this one can see
  uid_t uid = 0;
  gid_t gid = 0;
};

absl::StatusOr<PeerCredentials> CredentialsOf(int socket);

// Where to listen, and who may connect.
struct UnixAddress {
  std::string directory;
  std::string name;
  mode_t mode = 0600;
  std::optional<uid_t> owner;
  std::optional<gid_t> group;
};

// Listens at `address`, non-blocking; a socket that was left there is replaced. At no time can more
// users connect than `address` says. Descriptors that peers send along are refused where the kernel
// can (6.16).
//   kAlreadyExists  something else than a socket has that name
//   kNotFound       there is no such directory
absl::StatusOr<UniqueFd> ListenUnix(const UnixAddress& address, int backlog);

// Removes the socket's name; nothing happens if it is not there.
void RemoveUnix(const UnixAddress& address);

}  // namespace creel
