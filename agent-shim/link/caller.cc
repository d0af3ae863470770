#include "agent-shim/link/caller.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace creel::shim {
namespace {

// Between two looks at a connection whose end the kernel does not tell.
constexpr int kLookMilliseconds = 200;

// Whether poll() tells the end of a connection: gVisor's does not know POLLRDHUP on Unix sockets.
bool PollTellsEnd() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return false;
  }
  const UniqueFd ours(pair[0]);
  UniqueFd(pair[1]).reset();
  pollfd end{.fd = ours.get(), .events = POLLRDHUP, .revents = 0};
  return poll(&end, 1, 0) == 1 && (end.revents & (POLLRDHUP | POLLHUP)) != 0;
}

// What gRPC has read is gone, so an end is all that is seen here for sure.
bool HasEnded(int connection) {
  char byte = 0;
  const ssize_t got = recv(connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

}  // namespace

absl::StatusOr<UniqueFd> Connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(fmt::format("'{}' is too long for a socket", path));
  }
  memcpy(address.sun_path, path.data(), path.size());
  UniqueFd connection(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!connection.valid()) {
    return ErrnoStatus(errno, "make a socket");
  }
  // As much as is allowed; bulk output then takes fewer turns. A refusal does not matter.
  const int buffer = 4 << 20;
  setsockopt(connection.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
  if (connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == ECONNREFUSED || errno == EAGAIN) {
      return absl::UnavailableError(fmt::format("nobody listens on '{}'", path));
    }
    return ErrnoStatus(errno, fmt::format("connect to '{}'", path));
  }
  const int flags = fcntl(connection.get(), F_GETFL);
  if (flags < 0 || fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "make a socket non-blocking");
  }
  return connection;
}

Caller::Caller(Options options, OnConnected on_connected, OnEnded on_ended)
    : options_(std::move(options)),
      on_connected_(std::move(on_connected)),
      on_ended_(std::move(on_ended)) {}

void Caller::Run() {
  std::chrono::milliseconds delay = options_.first_delay;
  for (;;) {
    absl::StatusOr<UniqueFd> connection = Connect(options_.path);
    if (!connection.ok()) {
      if (!Wait(delay)) {
        return;
      }
      delay = std::min(delay * 2, options_.last_delay);
      continue;
    }
    // gRPC owns the connection from here on and does not tell when it ends; the copy does.
    const UniqueFd copy(fcntl(connection->get(), F_DUPFD_CLOEXEC, 3));
    if (!copy.valid()) {
      continue;
    }
    const auto connected_at = std::chrono::steady_clock::now();
    on_connected_(*std::move(connection));
    const bool go_on = WaitForEnd(copy.get());
    // Half-closed is closed: the other end must not be kept waiting by a call that goes on.
    shutdown(copy.get(), SHUT_RDWR);
    on_ended_();
    if (!go_on) {
      return;
    }
    // A peer that takes the call and hangs up at once is not called in a tight circle.
    if (std::chrono::steady_clock::now() - connected_at > options_.last_delay) {
      delay = options_.first_delay;
    } else if (!Wait(delay)) {
      return;
    } else {
      delay = std::min(delay * 2, options_.last_delay);
    }
  }
}

bool Caller::WaitForEnd(int connection) {
  pollfd fds[2] = {{.fd = connection, .events = POLLRDHUP, .revents = 0},
                   {.fd = options_.stop_fd, .events = POLLIN, .revents = 0}};
  static const bool tells_end = PollTellsEnd();
  for (;;) {
    if (poll(fds, 2, tells_end ? -1 : kLookMilliseconds) < 0) {
      continue;
    }
    if (fds[1].revents != 0) {
      return false;
    }
    if (fds[0].revents != 0 || (!tells_end && HasEnded(connection))) {
      return true;
    }
  }
}

bool Caller::Wait(std::chrono::milliseconds delay) {
  pollfd stop{.fd = options_.stop_fd, .events = POLLIN, .revents = 0};
  return poll(&stop, 1, static_cast<int>(delay.count())) <= 0;
}

}  // namespace creel::shim
