#include "supervisor/sandbox/guarded_connection.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstring>

namespace creel {
namespace {

// What one direction of one connection may carry before it is the others' turn.
constexpr size_t kTurnBytes = 1u << 20;
// How long the last bytes may take to a side whose other side has gone.
constexpr std::chrono::seconds kLinger{2};
constexpr size_t kMaxSpareBuffers = 8;
// SCM_MAX_FD of the kernel: as many descriptors as one message can bring.
constexpr size_t kMaxPassed = 253;

constexpr uint32_t kReadEvents = EPOLLIN | EPOLLRDHUP | EPOLLET;

}  // namespace

std::unique_ptr<GuardBuffer> GuardBuffers::Take() {
  if (spare_.empty()) {
    return std::unique_ptr<GuardBuffer>(new GuardBuffer);
  }
  std::unique_ptr<GuardBuffer> buffer = std::move(spare_.back());
  spare_.pop_back();
  return buffer;
}

void GuardBuffers::Give(std::unique_ptr<GuardBuffer> buffer) {
  if (buffer != nullptr && spare_.size() < kMaxSpareBuffers) {
    spare_.push_back(std::move(buffer));
  }
}

GuardedConnection::GuardedConnection(EventLoop& loop, GuardBuffers& buffers, Closer& closer,
                                     UniqueFd peer, UniqueFd inner, const FrameBounds& bounds,
                                     OnOver on_over)
    : loop_(loop),
      buffers_(buffers),
      closer_(closer),
      on_over_(std::move(on_over)),
      first_frame_within_(bounds.first_frame_within),
      parser_(bounds) {
  peer_.fd = std::move(peer);
  peer_.is_peer = true;
  inner_.fd = std::move(inner);
}

GuardedConnection::~GuardedConnection() {
  *alive_ = false;
  loop_.Cancel(linger_);
  loop_.Cancel(first_frame_);
  loop_.Unwatch(peer_.watch);
  loop_.Unwatch(inner_.watch);
  closer_.Close(std::move(peer_.fd));
}

void GuardedConnection::Begin() {
  for (Side* side : {&peer_, &inner_}) {
    absl::StatusOr<EventLoop::Id> watch = loop_.Watch(
        side->fd.get(), kReadEvents, [this, side](uint32_t events) { OnEvent(*side, events); });
    if (!watch.ok()) {
      End(watch.status());
      return;
    }
    side->watch = *watch;
  }
  first_frame_ = loop_.After(first_frame_within_, [this] {
    if (parser_.frames() == 0) {
      End(absl::DeadlineExceededError(
          fmt::format("the peer sent nothing within {} ms", first_frame_within_.count())));
    }
  });
}

void GuardedConnection::End(const absl::Status& why) {
  if (over_) {
    return;
  }
  over_ = true;
  loop_.Unwatch(peer_.watch);
  loop_.Unwatch(inner_.watch);
  loop_.Cancel(linger_);
  loop_.Cancel(first_frame_);
  buffers_.Give(std::move(peer_.pending));
  buffers_.Give(std::move(inner_.pending));
  // The peer learns of it at once, also where the close takes its time.
  shutdown(peer_.fd.get(), SHUT_RDWR);
  closer_.Close(std::move(peer_.fd));
  inner_.fd.reset();
  on_over_(why);
}

void GuardedConnection::OnEvent(Side& side, uint32_t events) {
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    side.hung_up = true;
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    side.readable = true;
  }
  if (side.blocked && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
    side.blocked = false;
    loop_.Change(side.watch, kReadEvents);
  }
  Turn();
}

void GuardedConnection::Turn() {
  bool more = Carry(peer_, inner_);
  if (!over_) {
    more = Carry(inner_, peer_) || more;
  }
  if (over_) {
    return;
  }
  // gRPC has closed its end, and the last it said has been passed on.
  if (inner_.ended && peer_.pending == nullptr) {
    End(absl::OkStatus());
    return;
  }
  // gRPC closes for good, so with its end in sight what is under way gets that long and no more.
  if (inner_.hung_up || peer_.write_dead) {
    Linger();
  }
  if (more && !turn_posted_) {
    turn_posted_ = true;
    loop_.Post([this, alive = alive_] {
      if (*alive) {
        turn_posted_ = false;
        if (!over_) {
          Turn();
        }
      }
    });
  }
}

bool GuardedConnection::Carry(Side& from, Side& to) {
  size_t carried = 0;
  while (FlushPending(to) && from.readable && !from.ended) {
    if (carried >= kTurnBytes) {
      return true;
    }
    std::unique_ptr<GuardBuffer> buffer = buffers_.Take();
    const ssize_t got = from.is_peer ? ReadPeer(buffer->data, GuardBuffer::kSize)
                                     : recv(from.fd.get(), buffer->data, GuardBuffer::kSize, 0);
    const int error = errno;
    if (over_) {
      buffers_.Give(std::move(buffer));
      return false;
    }
    if (got < 0 && error == EINTR) {
      buffers_.Give(std::move(buffer));
      continue;
    }
    if (got < 0 && error == EAGAIN) {
      buffers_.Give(std::move(buffer));
      from.readable = false;
      break;
    }
    if (got <= 0) {
      // A reset is a peer that closed before it had read all: an end of file for the one behind.
      buffers_.Give(std::move(buffer));
      from.ended = true;
      break;
    }
    const auto size = static_cast<size_t>(got);
    if (absl::Status checked = Check(from, buffer->data, size); !checked.ok()) {
      buffers_.Give(std::move(buffer));
      End(checked);
      return false;
    }
    carried += size;
    // Less than was asked for: it is drained, and a new edge tells of more. The end of file may
    // have been told already, so with that in sight it is read on.
    if (size < GuardBuffer::kSize && !from.hung_up) {
      from.readable = false;
    }
    const ssize_t taken = to.write_dead ? got : Write(to, buffer->data, size);
    if (taken >= 0 && static_cast<size_t>(taken) < size) {
      to.pending = std::move(buffer);
      to.pending_at = static_cast<size_t>(taken);
      to.pending_end = size;
    } else {
      buffers_.Give(std::move(buffer));
    }
  }
  if (from.ended && !to.shut && to.pending == nullptr) {
    to.shut = true;
    shutdown(to.fd.get(), SHUT_WR);
  }
  return false;
}

bool GuardedConnection::FlushPending(Side& to) {
  if (to.pending == nullptr) {
    return true;
  }
  if (to.blocked) {
    return false;
  }
  const size_t size = to.pending_end - to.pending_at;
  const ssize_t taken = Write(to, to.pending->data + to.pending_at, size);
  if (taken >= 0 && static_cast<size_t>(taken) < size) {
    to.pending_at += static_cast<size_t>(taken);
    return false;
  }
  buffers_.Give(std::move(to.pending));
  return true;
}

ssize_t GuardedConnection::ReadPeer(char* data, size_t size) {
  iovec vec = {.iov_base = data, .iov_len = size};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPassed * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &vec;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = recvmsg(peer_.fd.get(), &message, MSG_CMSG_CLOEXEC);
  if (got < 0 || (message.msg_controllen == 0 && (message.msg_flags & MSG_CTRUNC) == 0)) {
    return got;
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
      closer_.Close(UniqueFd(passed));
    }
  }
  End(absl::PermissionDeniedError("the peer passed descriptors"));
  return got;
}

ssize_t GuardedConnection::Write(Side& to, const char* data, size_t size) {
  size_t done = 0;
  while (done < size) {
    const ssize_t sent = send(to.fd.get(), data + done, size - done, MSG_NOSIGNAL);
    if (sent >= 0) {
      done += static_cast<size_t>(sent);
      continue;
    }
    if (errno == EINTR) {
      continue;
    }
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM) {
      to.blocked = true;
      loop_.Change(to.watch, kReadEvents | EPOLLOUT);
      return static_cast<ssize_t>(done);
    }
    to.write_dead = true;
    return -1;
  }
  return static_cast<ssize_t>(done);
}

absl::Status GuardedConnection::Check(const Side& from, const char* data, size_t size) {
  if (!from.is_peer) {
    parser_.Carried(size);
    return absl::OkStatus();
  }
  return parser_.Consume({data, size}, std::chrono::steady_clock::now());
}

void GuardedConnection::Linger() {
  if (linger_ == 0) {
    linger_ = loop_.After(kLinger, [this] { End(absl::OkStatus()); });
  }
}

}  // namespace creel
