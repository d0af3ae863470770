#include "supervisor/sandbox/frame_guard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <unordered_map>
#include <utility>
#include <vector>

#include "supervisor/base/event_loop.h"
#include "supervisor/base/mutex.h"
#include "supervisor/sandbox/guarded_calls.h"
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

// Shared with the connections, which gRPC may keep for longer than the guard lives.
struct State {
  const std::shared_ptr<Closer> closer = std::make_shared<Closer>();
  mutable Mutex mu;
  // Null once the guard is gone.
  std::unique_ptr<EventLoop> loop ABSL_GUARDED_BY(mu);
  uint64_t last_id ABSL_GUARDED_BY(mu) = 0;
  std::unordered_map<uint64_t, std::shared_ptr<GuardedConnection>> connections ABSL_GUARDED_BY(mu);

  // For the loop's thread alone.
  EventLoop* own_loop = nullptr;
  // Of those that have not sent their first frame, or had not when it was looked.
  std::unordered_map<uint64_t, EventLoop::Id> timers;

  [[nodiscard]] std::shared_ptr<GuardedConnection> Find(uint64_t id) const {
    MutexLock lock(mu);
    const auto it = connections.find(id);
    return it == connections.end() ? nullptr : it->second;
  }

  // False: the guard is gone, and `task` will not run.
  bool Post(EventLoop::Task task) {
    MutexLock lock(mu);
    if (loop == nullptr) {
      return false;
    }
    loop->Post(std::move(task));
    return true;
  }

  // In the loop's thread.
  void AwaitFirstFrame(uint64_t id, std::chrono::milliseconds within) {
    timers[id] = own_loop->After(within, [this, id, within] {
      timers.erase(id);
      const std::shared_ptr<GuardedConnection> connection = Find(id);
      if (connection != nullptr && connection->frames() == 0) {
        connection->End(absl::DeadlineExceededError(
            fmt::format("the peer sent nothing within {} ms", within.count())));
      }
    });
  }

  // In the loop's thread.
  void StopWaiting(uint64_t id) {
    if (const auto timer = timers.find(id); timer != timers.end()) {
      own_loop->Cancel(timer->second);
      timers.erase(timer);
    }
  }

  void Forget(uint64_t id) {
    std::shared_ptr<GuardedConnection> gone;  // destroyed outside the lock
    MutexLock lock(mu);
    if (const auto it = connections.find(id); it != connections.end()) {
      gone = std::move(it->second);
      connections.erase(it);
    }
  }
};

}  // namespace

struct FrameGuard::Impl {
  const std::shared_ptr<State> state = std::make_shared<State>();
};

FrameGuard::FrameGuard(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<FrameGuard>> FrameGuard::Start() {
  ASSIGN_OR_RETURN(std::unique_ptr<EventLoop> loop, EventLoop::Start("guard"));
  auto impl = std::make_unique<Impl>();
  State& state = *impl->state;
  {
    MutexLock lock(state.mu);
    state.own_loop = loop.get();
    state.loop = std::move(loop);
  }
  return std::unique_ptr<FrameGuard>(new FrameGuard(std::move(impl)));
}

FrameGuard::~FrameGuard() {
  std::vector<std::shared_ptr<GuardedConnection>> all;
  {
    MutexLock lock(impl_->state->mu);
    for (const auto& [id, connection] : impl_->state->connections) {
      all.push_back(connection);
    }
  }
  for (const auto& connection : all) {
    connection->End(absl::CancelledError("the supervisor is stopping"));
  }
  // What is on its way to be told is told.
  impl_->state->own_loop->Run([] {});
  std::unique_ptr<EventLoop> loop;
  {
    MutexLock lock(impl_->state->mu);
    loop = std::move(impl_->state->loop);
  }
  loop.reset();
}

absl::StatusOr<FrameGuard::Guarded> FrameGuard::Guard(UniqueFd peer, const FrameBounds& bounds,
                                                      OnEnd on_end) {
  if (impl_->state->closer->backlog() > kMaxBacklog) {
    impl_->state->closer->Close(std::move(peer));
    return absl::ResourceExhaustedError("too many dropped connections wait to be closed");
  }
  const int fd = peer.get();
  if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) != 0) {
    const int error = errno;
    impl_->state->closer->Close(std::move(peer));
    return ErrnoStatus(error, "fcntl");
  }
  EnlargeBuffer(fd);
  uint64_t id = 0;
  {
    MutexLock lock(impl_->state->mu);
    id = ++impl_->state->last_id;
  }
  // Whoever ends it tells the loop, so that the end is told after all that went before.
  const auto connection = std::make_shared<GuardedConnection>(
      std::move(peer), impl_->state->closer, bounds,
      [state = impl_->state, id, on_end = std::move(on_end)](const absl::Status& why) {
        state->Post([state = state.get(), id, on_end, why] {
          state->StopWaiting(id);
          on_end(why);
        });
      },
      [state = impl_->state, id] {
        if (!state->Post([state = state.get(), id] { state->Forget(id); })) {
          state->Forget(id);
        }
      });
  {
    MutexLock lock(impl_->state->mu);
    impl_->state->connections.emplace(id, connection);
  }
  impl_->state->Post([state = impl_->state.get(), id, within = bounds.first_frame_within] {
    state->AwaitFirstFrame(id, within);
  });
  if (const absl::Status guarded = GuardCalls(*connection); !guarded.ok()) {
    impl_->state->Forget(id);
    impl_->state->closer->Close(UniqueFd(fd));
    return guarded;
  }
  return Guarded{.inner = UniqueFd(fd), .id = id};
}

void FrameGuard::Drop(uint64_t id, const absl::Status& why) {
  if (const std::shared_ptr<GuardedConnection> connection = impl_->state->Find(id);
      connection != nullptr) {
    connection->End(why);
  }
}

Closer& FrameGuard::closer() { return *impl_->state->closer; }

size_t FrameGuard::connections() const {
  MutexLock lock(impl_->state->mu);
  return impl_->state->connections.size();
}

}  // namespace creel
