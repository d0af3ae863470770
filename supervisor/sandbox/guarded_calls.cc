#include "supervisor/sandbox/guarded_calls.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "supervisor/sandbox/guarded_connection.h"

namespace creel {
namespace {

// Above any RLIMIT_NOFILE that creeld asks for. Pages of it that no descriptor falls into cost
// nothing.
constexpr unsigned kNumbers = 1u << 20;
std::atomic<GuardedConnection*> guarded[kNumbers];

GuardedConnection* Find(int fd) {
  return static_cast<unsigned>(fd) < kNumbers
             ? guarded[static_cast<unsigned>(fd)].load(std::memory_order_acquire)
             : nullptr;
}

}  // namespace

absl::Status GuardCalls(GuardedConnection& connection) {
  const int fd = connection.fd();
  if (static_cast<unsigned>(fd) >= kNumbers) {
    return absl::ResourceExhaustedError(
        fmt::format("descriptor {} is above those that can be guarded", fd));
  }
  guarded[static_cast<unsigned>(fd)].store(&connection, std::memory_order_release);
  return absl::OkStatus();
}

void UnguardCalls(int fd) {
  guarded[static_cast<unsigned>(fd)].store(nullptr, std::memory_order_release);
}

std::optional<GuardedTraffic> TrafficOf(int fd) {
  const GuardedConnection* const connection = Find(fd);
  if (connection == nullptr) {
    return std::nullopt;
  }
  return GuardedTraffic{.received = connection->received(),
                        .sent = connection->sent(),
                        .frames = connection->frames()};
}

}  // namespace creel

// In the place of libc's, for this executable and the libraries it has loaded.
extern "C" {

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  if (creel::GuardedConnection* const connection = creel::Find(fd); connection != nullptr) {
    return connection->Receive(message, flags);
  }
  return syscall(SYS_recvmsg, fd, message, flags);
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  if (creel::GuardedConnection* const connection = creel::Find(fd); connection != nullptr) {
    return connection->Send(message, flags);
  }
  return syscall(SYS_sendmsg, fd, message, flags);
}

int shutdown(int fd, int how) noexcept {
  if (creel::GuardedConnection* const connection = creel::Find(fd); connection != nullptr) {
    return connection->Shutdown(how);
  }
  return static_cast<int>(syscall(SYS_shutdown, fd, how));
}

int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  if (creel::GuardedConnection* const connection = creel::Find(fd); connection != nullptr) {
    return connection->Watch(epoll, operation, event);
  }
  return static_cast<int>(syscall(SYS_epoll_ctl, epoll, operation, fd, event));
}

int close(int fd) {
  if (creel::GuardedConnection* const connection = creel::Find(fd); connection != nullptr) {
    return connection->Close();
  }
  return static_cast<int>(syscall(SYS_close, fd));
}

}  // extern "C"
