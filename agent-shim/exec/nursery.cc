#include "agent-shim/exec/nursery.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "agent-shim/exec/marks.h"
#include "agent-shim/exec/reaper.h"

namespace creel::shim {
namespace {

// Reapers that wait after a burst; each is a process of some hundred kilobytes.
constexpr size_t kMaxIdle = 2;

struct SocketPair {
  UniqueFd ours;
  UniqueFd theirs;
};

absl::StatusOr<SocketPair> MakePair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoStatus(errno, "make a socket pair for a reaper");
  }
  return SocketPair{.ours = UniqueFd(fds[0]), .theirs = UniqueFd(fds[1])};
}

absl::Status SendDescriptor(int socket, int fd) {
  char byte = 0;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec piece{.iov_base = &byte, .iov_len = 1};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  ssize_t sent = 0;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    return ErrnoStatus(errno, "order a reaper");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Nursery>> Nursery::Start() {
  std::unique_ptr<Nursery> nursery(new Nursery(HasSubreapers()));
  MutexLock lock(nursery->mu_);
  RETURN_IF_ERROR(nursery->ForkLocked());
  ASSIGN_OR_RETURN(Reaper first, nursery->OrderLocked());
  nursery->idle_.push_back(std::move(first));
  return nursery;
}

Nursery::~Nursery() {
  MutexLock lock(mu_);
  idle_.clear();
  socket_.reset();
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
}

absl::Status Nursery::ForkLocked() {
  socket_.reset();
  if (pid_ > 0) {
    int status = 0;
    waitpid(pid_, &status, WNOHANG);
  }
  ASSIGN_OR_RETURN(SocketPair pair, MakePair());
  // Not fork(): no handler of a library may run in a child that has lost its other threads.
  const pid_t pid = _Fork();
  if (pid < 0 && errno == EAGAIN) {
    return absl::ResourceExhaustedError("the sandbox is at its process limit");
  }
  if (pid < 0) {
    return ErrnoStatus(errno, "fork the nursery");
  }
  if (pid == 0) {
    RunNursery(pair.theirs.get());
  }
  socket_ = std::move(pair.ours);
  pid_ = pid;
  return absl::OkStatus();
}

absl::StatusOr<Reaper> Nursery::OrderLocked() {
  ASSIGN_OR_RETURN(SocketPair pair, MakePair());
  if (!SendDescriptor(socket_.get(), pair.theirs.get()).ok()) {
    RETURN_IF_ERROR(ForkLocked());
    RETURN_IF_ERROR(SendDescriptor(socket_.get(), pair.theirs.get()));
  }
  return Reaper{.socket = std::move(pair.ours)};
}

absl::StatusOr<Reaper> Nursery::Take() {
  MutexLock lock(mu_);
  if (!idle_.empty()) {
    Reaper reaper = std::move(idle_.back());
    idle_.pop_back();
    return reaper;
  }
  return OrderLocked();
}

void Nursery::Return(Reaper reaper) {
  MutexLock lock(mu_);
  if (idle_.size() < kMaxIdle) {
    idle_.push_back(std::move(reaper));
  }
}

void Nursery::Refill() {
  MutexLock lock(mu_);
  if (idle_.empty()) {
    if (absl::StatusOr<Reaper> reaper = OrderLocked(); reaper.ok()) {
      idle_.push_back(*std::move(reaper));
    }
  }
}

absl::Status Nursery::Restart() {
  MutexLock lock(mu_);
  idle_.clear();
  RETURN_IF_ERROR(ForkLocked());
  ASSIGN_OR_RETURN(Reaper first, OrderLocked());
  idle_.push_back(std::move(first));
  return absl::OkStatus();
}

pid_t Nursery::pid() const {
  MutexLock lock(mu_);
  return pid_;
}

}  // namespace creel::shim
