#include "supervisor/sandbox/door_listener.h"

#include <fmt/format.h>
#include <grpcpp/server_posix.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <unordered_map>
#include <utility>

#include "supervisor/base/mutex.h"

namespace creel {
namespace {

constexpr int kBacklog = 128;
constexpr std::chrono::milliseconds kRetryAccept{50};

// As gRPC calls a connection that was given to it as a descriptor.
std::string GrpcPeer(int fd) { return fmt::format("fd:{}", fd); }

}  // namespace

// Listener and connections belong to the pool's loop; the table is shared with those who ask.
class DoorListener::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(LinkPool& pool, grpc::Server* server, Options options)
      : pool_(pool), server_(server), options_(std::move(options)) {
    options_.bounds.expect_preface = true;
  }

  absl::Status Open();
  void StopListening();
  void Close();
  std::optional<PeerCredentials> CallerOf(std::string_view grpc_peer) const;
  size_t connections() const;
  EventLoop& loop() { return pool_.loop(); }

 private:
  struct Connection {
    PeerCredentials peer;
    std::string grpc_peer;
  };
  struct Caller {
    PeerCredentials peer;
    uint64_t guard_id = 0;
  };

  void OnConnecting();
  void Admit(UniqueFd peer);
  absl::Status CheckPeer(const PeerCredentials& peer) const;
  void Refuse(UniqueFd socket, const PeerCredentials& peer, const absl::Status& why);
  void OnEnd(const std::shared_ptr<uint64_t>& guard_id, const absl::Status& why);

  LinkPool& pool_;
  grpc::Server* const server_;
  Options options_;
  bool closed_ = false;
  UniqueFd listener_;
  EventLoop::Id watch_ = 0;
  EventLoop::Id retry_ = 0;
  // By the guard's number.
  std::unordered_map<uint64_t, Connection> connections_;
  std::unordered_map<uint32_t, size_t> per_uid_;

  mutable Mutex mu_;
  std::unordered_map<std::string, Caller> callers_ ABSL_GUARDED_BY(mu_);
};

absl::Status DoorListener::Impl::Open() {
  ASSIGN_OR_RETURN(listener_, ListenUnix(options_.address, kBacklog));
  absl::StatusOr<EventLoop::Id> watch = pool_.loop().Watch(
      listener_.get(), EPOLLIN, [self = shared_from_this()](uint32_t) { self->OnConnecting(); });
  if (!watch.ok()) {
    StopListening();
    return watch.status();
  }
  watch_ = *watch;
  return absl::OkStatus();
}

void DoorListener::Impl::StopListening() {
  pool_.loop().Unwatch(std::exchange(watch_, 0));
  pool_.loop().Cancel(std::exchange(retry_, 0));
  if (listener_.valid()) {
    RemoveUnix(options_.address);
    shutdown(listener_.get(), SHUT_RDWR);
    pool_.guard().closer().Close(std::move(listener_));
  }
}

void DoorListener::Impl::Close() {
  closed_ = true;
  StopListening();
  for (const auto& [guard_id, connection] : connections_) {
    pool_.guard().Drop(guard_id, absl::CancelledError("the door is closed"));
  }
  connections_.clear();
  per_uid_.clear();
  MutexLock lock(mu_);
  callers_.clear();
}

std::optional<PeerCredentials> DoorListener::Impl::CallerOf(std::string_view grpc_peer) const {
  MutexLock lock(mu_);
  const auto it = callers_.find(std::string(grpc_peer));
  return it == callers_.end() ? std::nullopt : std::optional(it->second.peer);
}

size_t DoorListener::Impl::connections() const {
  MutexLock lock(mu_);
  return callers_.size();
}

void DoorListener::Impl::OnConnecting() {
  while (listener_.valid()) {
    UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      Admit(std::move(socket));
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) {
      continue;
    }
    if (errno != EAGAIN && retry_ == 0) {
      // Out of descriptors or memory: later, rather than at once again.
      pool_.loop().Change(watch_, 0);
      retry_ = pool_.loop().After(kRetryAccept, [self = shared_from_this()] {
        self->retry_ = 0;
        self->pool_.loop().Change(self->watch_, EPOLLIN);
      });
    }
    return;
  }
}

absl::Status DoorListener::Impl::CheckPeer(const PeerCredentials& peer) const {
  if (options_.allowed_uids.has_value() &&
      std::find(options_.allowed_uids->begin(), options_.allowed_uids->end(), peer.uid) ==
          options_.allowed_uids->end()) {
    return absl::PermissionDeniedError(fmt::format("uid {} may not connect here", peer.uid));
  }
  if (connections_.size() >= options_.max_connections) {
    return absl::ResourceExhaustedError(
        fmt::format("all {} connections are in use", options_.max_connections));
  }
  const auto it = per_uid_.find(peer.uid);
  if (it != per_uid_.end() && it->second >= options_.max_connections_per_uid) {
    return absl::ResourceExhaustedError(fmt::format("uid {} has {} connections already", peer.uid,
                                                    options_.max_connections_per_uid));
  }
  return absl::OkStatus();
}

void DoorListener::Impl::Refuse(UniqueFd socket, const PeerCredentials& peer,
                                const absl::Status& why) {
  shutdown(socket.get(), SHUT_RDWR);
  pool_.guard().closer().Close(std::move(socket));
  if (options_.on_dropped) {
    options_.on_dropped(peer, std::string(why.message()));
  }
}

void DoorListener::Impl::Admit(UniqueFd socket) {
  const absl::StatusOr<PeerCredentials> peer = CredentialsOf(socket.get());
  if (!peer.ok()) {
    Refuse(std::move(socket), {}, peer.status());
    return;
  }
  if (const absl::Status checked = CheckPeer(*peer); !checked.ok()) {
    Refuse(std::move(socket), *peer, checked);
    return;
  }
  // The guard's number is known only after it has begun; its end is told through the loop, and so
  // comes after it was written here.
  auto guard_id = std::make_shared<uint64_t>(0);
  absl::StatusOr<FrameGuard::Guarded> guarded = pool_.guard().Guard(
      std::move(socket), options_.bounds,
      [self = shared_from_this(), guard_id](const absl::Status& why) {
        self->pool_.loop().Post([self, guard_id, why] { self->OnEnd(guard_id, why); });
      });
  if (!guarded.ok()) {
    Refuse(UniqueFd(), *peer, guarded.status());
    return;
  }
  *guard_id = guarded->id;
  const int fd = guarded->inner.release();
  Connection connection = {.peer = *peer, .grpc_peer = GrpcPeer(fd)};
  ++per_uid_[peer->uid];
  {
    // A number that gRPC has closed may come again before the end of its last use is told here.
    MutexLock lock(mu_);
    callers_[connection.grpc_peer] = {.peer = *peer, .guard_id = guarded->id};
  }
  connections_.emplace(guarded->id, std::move(connection));
  grpc::AddInsecureChannelFromFd(server_, fd);
}

void DoorListener::Impl::OnEnd(const std::shared_ptr<uint64_t>& guard_id, const absl::Status& why) {
  const auto it = connections_.find(*guard_id);
  if (closed_ || it == connections_.end()) {
    return;
  }
  const Connection connection = std::move(it->second);
  connections_.erase(it);
  const auto count = per_uid_.find(connection.peer.uid);
  if (count != per_uid_.end() && --count->second == 0) {
    per_uid_.erase(count);
  }
  {
    MutexLock lock(mu_);
    const auto caller = callers_.find(connection.grpc_peer);
    if (caller != callers_.end() && caller->second.guard_id == *guard_id) {
      callers_.erase(caller);
    }
  }
  // A server lets go of its connections when it ends.
  if (!why.ok() && !absl::IsUnavailable(why) && options_.on_dropped) {
    options_.on_dropped(connection.peer, std::string(why.message()));
  }
}

absl::StatusOr<std::unique_ptr<DoorListener>> DoorListener::Listen(LinkPool& pool,
                                                                   grpc::Server* server,
                                                                   Options options) {
  auto impl = std::make_shared<Impl>(pool, server, std::move(options));
  absl::Status opened;
  pool.loop().Run([&] { opened = impl->Open(); });
  RETURN_IF_ERROR(opened);
  return std::unique_ptr<DoorListener>(new DoorListener(std::move(impl)));
}

DoorListener::DoorListener(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

DoorListener::~DoorListener() {
  impl_->loop().Run([this] { impl_->Close(); });
}

void DoorListener::StopListening() {
  impl_->loop().Run([this] { impl_->StopListening(); });
}

std::optional<PeerCredentials> DoorListener::CallerOf(std::string_view grpc_peer) const {
  return impl_->CallerOf(grpc_peer);
}

size_t DoorListener::connections() const { return impl_->connections(); }

}  // namespace creel
