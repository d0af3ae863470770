#include "supervisor/sandbox/guarded_connection.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <utility>

#include "supervisor/sandbox/guarded_calls.h"

namespace creel {
namespace {

// SCM_MAX_FD of the kernel: as many descriptors as one message can bring.
constexpr size_t kMaxPassed = 253;
// Flags that leave a receive what it is. Others would show bytes that are not taken (MSG_PEEK), or
// take some that are not shown (MSG_TRUNC), and no gRPC uses them.
constexpr int kReceiveFlags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_NOSIGNAL | MSG_WAITALL;

// So many sends in a row have found room when the watch for it ends: in a stream it would only come
// and go.
constexpr int kSendsWatched = 64;

bool IsPassing(int error) {
  return error == EAGAIN || error == EINTR || error == ENOBUFS || error == ENOMEM;
}

// Of a connection that nobody had ended before.
absl::Status EndedByGrpc() {
  return absl::UnavailableError("gRPC ended the connection, as it does where HTTP/2 is broken");
}

// As libc's, which is hidden behind the calls that come here.
void ShutDown(int fd) { syscall(SYS_shutdown, fd, SHUT_RDWR); }

}  // namespace

GuardedConnection::GuardedConnection(UniqueFd peer, std::shared_ptr<Closer> closer,
                                     const FrameBounds& bounds, OnOver on_over, OnClosed on_closed)
    : fd_(peer.release()),
      process_(getpid()),
      closer_(std::move(closer)),
      on_over_(std::move(on_over)),
      on_closed_(std::move(on_closed)),
      parser_(bounds) {}

ssize_t GuardedConnection::Receive(msghdr* message, int flags) {
  if ((flags & ~kReceiveFlags) != 0) {
    errno = EOPNOTSUPP;
    return -1;
  }
  if (dropped_.load(std::memory_order_acquire)) {
    errno = ECONNRESET;
    return -1;
  }
  // With room for descriptors even if the caller has none: the kernel would close them here and
  // now, which can take as long as the peer likes.
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPassed * sizeof(int))];
  msghdr mine = *message;
  mine.msg_control = control;
  mine.msg_controllen = sizeof(control);
  const ssize_t got = syscall(SYS_recvmsg, fd_, &mine, flags | MSG_CMSG_CLOEXEC);
  if (got < 0) {
    const int error = errno;
    if (!IsPassing(error)) {
      // A reset is a peer that closed before it had read all: an end of file.
      End(absl::OkStatus());
    }
    errno = error;
    return -1;
  }
  message->msg_namelen = mine.msg_namelen;
  message->msg_controllen = 0;
  message->msg_flags = mine.msg_flags & ~MSG_CMSG_CLOEXEC;
  absl::Status checked;
  if (!ClosePassed(mine)) {
    checked = absl::PermissionDeniedError("the peer passed descriptors");
  } else if (got > 0) {
    checked = Check(message->msg_iov, message->msg_iovlen, static_cast<size_t>(got));
  }
  if (got == 0 || !checked.ok()) {
    // Also a peer that has only closed its half: gRPC would keep the connection for as long as such
    // a peer does not read what is being written to it.
    End(checked);
  }
  if (!checked.ok() || dropped_.load(std::memory_order_acquire)) {
    errno = ECONNRESET;
    return -1;
  }
  return got;
}

ssize_t GuardedConnection::Send(const msghdr* message, int flags) {
  size_t size = 0;
  for (size_t i = 0; i < message->msg_iovlen; ++i) {
    size += message->msg_iov[i].iov_len;
  }
  // Counted before the peer can have answered it; what was not taken is counted when it is sent
  // again.
  sent_.fetch_add(size, std::memory_order_relaxed);
  const ssize_t taken = syscall(SYS_sendmsg, fd_, message, flags);
  if (taken < 0) {
    const int error = errno;
    sent_.fetch_sub(size, std::memory_order_relaxed);
    if (error == EAGAIN || error == ENOBUFS) {
      WaitForRoom();
    } else if (!IsPassing(error)) {
      // A peer that only refuses to be written to does not keep its connection.
      End(absl::OkStatus());
    }
    errno = error;
    return -1;
  }
  sent_.fetch_sub(size - static_cast<size_t>(taken), std::memory_order_relaxed);
  if (room_watched_for_ > 0 && static_cast<size_t>(taken) == size) {
    FoundRoom();
  }
  return taken;
}

int GuardedConnection::Shutdown(int how) {
  // A child that was forked off has a copy of all this, and no thread to carry it out.
  if (how == SHUT_RDWR && getpid() == process_) {
    End(EndedByGrpc());
  }
  return static_cast<int>(syscall(SYS_shutdown, fd_, how));
}

int GuardedConnection::Watch(int epoll, int operation, epoll_event* event) {
  MutexLock lock(watch_mu_);
  if (operation == EPOLL_CTL_DEL) {
    epoll_ = -1;
  } else if (event != nullptr) {
    epoll_ = epoll;
    watched_ = *event;
  }
  epoll_event without = {};
  if (operation == EPOLL_CTL_ADD && event != nullptr && (event->events & EPOLLET) != 0) {
    without = *event;
    without.events &= ~static_cast<uint32_t>(EPOLLOUT);
    event = &without;
  }
  return static_cast<int>(syscall(SYS_epoll_ctl, epoll, operation, fd_, event));
}

void GuardedConnection::WaitForRoom() {
  room_watched_for_ = kSendsWatched;
  MutexLock lock(watch_mu_);
  if (epoll_ >= 0) {
    // Also where it is set already: if there is room by now, this makes it be told.
    epoll_event event = watched_;
    syscall(SYS_epoll_ctl, epoll_, EPOLL_CTL_MOD, fd_, &event);
  }
}

void GuardedConnection::FoundRoom() {
  if (--room_watched_for_ > 0) {
    return;
  }
  MutexLock lock(watch_mu_);
  if (epoll_ >= 0) {
    epoll_event event = watched_;
    event.events &= ~static_cast<uint32_t>(EPOLLOUT);
    syscall(SYS_epoll_ctl, epoll_, EPOLL_CTL_MOD, fd_, &event);
  }
}

int GuardedConnection::Close() {
  if (getpid() != process_) {
    return static_cast<int>(syscall(SYS_close, fd_));
  }
  // From now on nobody touches the number on this one's behalf.
  End(EndedByGrpc());
  UnguardCalls(fd_);
  {
    // The close comes later, and gRPC thinks that no event can come any more.
    MutexLock lock(watch_mu_);
    if (epoll_ >= 0) {
      syscall(SYS_epoll_ctl, epoll_, EPOLL_CTL_DEL, fd_, nullptr);
      epoll_ = -1;
    }
  }
  // The peer has learned of it; the close may take its time.
  closer_->Close(UniqueFd(fd_));
  // The last, as it may let go of this.
  const OnClosed on_closed = on_closed_;
  on_closed();
  return 0;
}

bool GuardedConnection::ClosePassed(msghdr& message) {
  if (message.msg_controllen == 0 && (message.msg_flags & MSG_CTRUNC) == 0) {
    return true;
  }
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int passed = -1;
      std::memcpy(&passed, CMSG_DATA(part) + i * sizeof(int), sizeof(passed));
      closer_->Close(UniqueFd(passed));
    }
  }
  return false;
}

absl::Status GuardedConnection::Check(const iovec* parts, size_t count, size_t bytes) {
  const auto now = std::chrono::steady_clock::now();
  const size_t all = bytes;
  MutexLock lock(mu_);
  const uint64_t sent = sent_.load(std::memory_order_relaxed);
  if (sent > carried_) {
    parser_.Carried(sent - carried_);
    carried_ = sent;
  }
  for (size_t i = 0; i < count && bytes > 0; ++i) {
    const size_t part = std::min(bytes, parts[i].iov_len);
    RETURN_IF_ERROR(parser_.Consume({static_cast<const char*>(parts[i].iov_base), part}, now));
    bytes -= part;
  }
  frames_.store(parser_.frames(), std::memory_order_relaxed);
  received_.fetch_add(all, std::memory_order_relaxed);
  return absl::OkStatus();
}

void GuardedConnection::End(const absl::Status& why) {
  {
    MutexLock lock(mu_);
    if (std::exchange(over_, true)) {
      return;
    }
    dropped_.store(!why.ok(), std::memory_order_release);
    // Not before it is said why, and not once the number may be another's.
    ShutDown(fd_);
  }
  on_over_(why);
}

}  // namespace creel
