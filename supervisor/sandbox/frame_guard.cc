#include "supervisor/sandbox/frame_guard.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <unordered_map>
#include <utility>

#include "supervisor/base/event_loop.h"
#include "supervisor/sandbox/guarded_connection.h"

namespace creel {
namespace {

// Bytes under way in a socket. More does not speed up what is carried, less makes for more turns.
constexpr int kSocketBuffer = 1 << 20;
// Peers whose sockets still wait to be closed, above which no new ones are taken.
constexpr size_t kMaxBacklog = 1024;

void EnlargeBuffer(int fd) {
  // The forced variant goes above the system's limit, and is root's; the other goes up to it.
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kSocketBuffer, sizeof(kSocketBuffer)) != 0) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSocketBuffer, sizeof(kSocketBuffer));
  }
}

}  // namespace

struct FrameGuard::Impl {
  Closer closer;
  std::atomic<uint64_t> last_id = 0;
  std::atomic<size_t> count = 0;
  // Of the loop's thread.
  GuardBuffers buffers;
  std::unordered_map<uint64_t, std::unique_ptr<GuardedConnection>> connections;
  std::unique_ptr<EventLoop> loop;

  void Add(uint64_t id, UniqueFd peer, UniqueFd inner, const FrameBounds& bounds, OnEnd on_end) {
    auto connection = std::make_unique<GuardedConnection>(
        *loop, buffers, closer, std::move(peer), std::move(inner), bounds,
        [this, id, on_end = std::move(on_end)](const absl::Status& why) {
          // The connection is still on the stack.
          loop->Post([this, id] { connections.erase(id); });
          --count;
          on_end(why);
        });
    GuardedConnection& added = *connection;
    connections.emplace(id, std::move(connection));
    added.Begin();
  }
};

FrameGuard::FrameGuard(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<FrameGuard>> FrameGuard::Start() {
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->loop, EventLoop::Start("guard"));
  return std::unique_ptr<FrameGuard>(new FrameGuard(std::move(impl)));
}

FrameGuard::~FrameGuard() {
  impl_->loop->Run([this] {
    for (auto& [id, connection] : impl_->connections) {
      connection->End(absl::CancelledError("the supervisor is stopping"));
    }
    impl_->connections.clear();
  });
  impl_->loop.reset();
}

absl::StatusOr<FrameGuard::Guarded> FrameGuard::Guard(UniqueFd peer, const FrameBounds& bounds,
                                                      OnEnd on_end) {
  if (impl_->closer.backlog() > kMaxBacklog) {
    impl_->closer.Close(std::move(peer));
    return absl::ResourceExhaustedError("too many dropped connections wait to be closed");
  }
  int pair[2];
  if (fcntl(peer.get(), F_SETFL, O_RDWR | O_NONBLOCK) != 0 ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
    const int error = errno;
    impl_->closer.Close(std::move(peer));
    return ErrnoStatus(error, "socketpair");
  }
  UniqueFd ours(pair[0]);
  Guarded guarded = {.inner = UniqueFd(pair[1]), .id = ++impl_->last_id};
  for (const int fd : {peer.get(), ours.get(), guarded.inner.get()}) {
    EnlargeBuffer(fd);
  }
  ++impl_->count;
  // std::function wants what can be copied.
  auto fds = std::make_shared<std::pair<UniqueFd, UniqueFd>>(std::move(peer), std::move(ours));
  impl_->loop->Post(
      [impl = impl_.get(), id = guarded.id, fds, bounds, on_end = std::move(on_end)]() mutable {
        impl->Add(id, std::move(fds->first), std::move(fds->second), bounds, std::move(on_end));
      });
  return guarded;
}

void FrameGuard::Drop(uint64_t id, const absl::Status& why) {
  impl_->loop->Post([impl = impl_.get(), id, why] {
    const auto it = impl->connections.find(id);
    if (it != impl->connections.end()) {
      it->second->End(why);
    }
  });
}

Closer& FrameGuard::closer() { return impl_->closer; }

size_t FrameGuard::connections() const { return impl_->count; }

}  // namespace creel
