#include "agent-shim/egress/relay.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

namespace creel::shim {
namespace {

using std::chrono::milliseconds;

constexpr int kBacklog = 128;
constexpr uint32_t kEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
// What one connection may carry before the others have their turn.
constexpr size_t kTurn = 1u << 20;
constexpr milliseconds kRetry{20};
// Said to an HTTP client while there is no supervisor to say anything.
constexpr char kAway[] =
    "HTTP/1.1 503 Service Unavailable\r\nX-Creel-Reason: supervisor-away\r\n"
    "Content-Type: text/plain\r\nContent-Length: 54\r\nConnection: close\r\n\r\n"
    "creel: the supervisor does not answer; try again later";

// A non-blocking connection to the supervisor; EAGAIN: it has no time to accept it yet.
absl::StatusOr<UniqueFd> Dial(const std::string& path, int& error) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(fmt::format("'{}' is too long for a socket", path));
  }
  memcpy(address.sun_path, path.data(), path.size());
  UniqueFd connection(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!connection.valid() ||
      connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    error = errno;
    return ErrnoStatus(error, fmt::format("connect to '{}'", path));
  }
  return connection;
}

}  // namespace

// One connection of a tool. Its members are the loop's thread's.
class Relay::Carried : public std::enable_shared_from_this<Carried> {
 public:
  Carried(Relay& relay, uint64_t id, UniqueFd tool)
      : relay_(relay), id_(id), tool_(std::move(tool)), give_up_(After(relay.options_.patience)) {}

  void Begin() {
    int error = 0;
    absl::StatusOr<UniqueFd> out = Dial(relay_.options_.socket, error);
    if (!out.ok()) {
      // Away for a moment, as at a restart, or busy.
      const bool again = error == EAGAIN || error == ECONNREFUSED || error == ENOENT;
      if (again && std::chrono::steady_clock::now() < give_up_) {
        relay_.loop_->At(After(kRetry), [self = shared_from_this()] { self->Begin(); });
        return;
      }
      const ssize_t told = send(tool_.get(), kAway, sizeof kAway - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
      static_cast<void>(told);
      shutdown(tool_.get(), SHUT_WR);
      End();
      return;
    }
    out_ = *std::move(out);
    const int no_delay = 1;
    setsockopt(tool_.get(), IPPROTO_TCP, TCP_NODELAY, &no_delay, sizeof no_delay);
    up_.emplace(tool_.get(), out_.get());
    down_.emplace(out_.get(), tool_.get());
    for (const auto& [fd, watch] :
         {std::pair<int, uint64_t*>{tool_.get(), &tool_watch_}, {out_.get(), &out_watch_}}) {
      // An error at the supervisor's end does not take away what it has said before.
      const uint32_t fatal = fd == tool_.get() ? uint32_t{EPOLLERR} : 0U;
      absl::StatusOr<uint64_t> added =
          relay_.loop_->Watch(fd, kEvents, [self = shared_from_this(), fatal](uint32_t events) {
            self->OnReady((events & fatal) != 0);
          });
      if (!added.ok()) {
        End();
        return;
      }
      *watch = *added;
    }
  }

 private:
  void OnReady(bool tool_gone) {
    if (ended_) {
      return;
    }
    const Flow::State up = up_->Pump(relay_.pipes_, kTurn);
    const Flow::State down = down_->Pump(relay_.pipes_, kTurn);
    // A supervisor that takes nothing more may still have a last word; a tool that is gone has not.
    const bool broken =
        up == Flow::State::kBroken || down == Flow::State::kBroken || down == Flow::State::kStuck;
    const bool over = (up_->done() || up == Flow::State::kStuck) && down_->done();
    if (broken || over || tool_gone) {
      End();
      return;
    }
    if (up == Flow::State::kMore || down == Flow::State::kMore) {
      relay_.loop_->Rearm(tool_watch_);
      relay_.loop_->Rearm(out_watch_);
    }
  }

  void End() {
    if (std::exchange(ended_, true)) {
      return;
    }
    relay_.loop_->Unwatch(tool_watch_);
    relay_.loop_->Unwatch(out_watch_);
    up_.reset();
    down_.reset();
    tool_.reset();
    out_.reset();
    relay_.Ended(id_);
  }

  Relay& relay_;
  const uint64_t id_;
  UniqueFd tool_;
  UniqueFd out_;
  const Deadline give_up_;
  std::optional<Flow> up_;
  std::optional<Flow> down_;
  uint64_t tool_watch_ = 0;
  uint64_t out_watch_ = 0;
  bool ended_ = false;
};

absl::StatusOr<std::unique_ptr<Relay>> Relay::Start(Options options) {
  std::unique_ptr<Relay> relay(new Relay(std::move(options)));
  for (const uint16_t port : relay->options_.ports) {
    RETURN_IF_ERROR(relay->Listen(port));
  }
  ASSIGN_OR_RETURN(relay->loop_, EventLoop::Start());
  for (size_t i = 0; i < relay->listeners_.size(); ++i) {
    ASSIGN_OR_RETURN(relay->listeners_[i].watch,
                     relay->loop_->Watch(relay->listeners_[i].fd.get(), EPOLLIN | EPOLLET,
                                         [raw = relay.get(), i](uint32_t) { raw->Accept(i); }));
    // What came before the watch.
    relay->loop_->Rearm(relay->listeners_[i].watch);
  }
  return relay;
}

Relay::~Relay() {
  if (loop_ != nullptr) {
    loop_->Stop();
  }
}

size_t Relay::connections() const {
  MutexLock lock(mu_);
  return carried_.size();
}

absl::Status Relay::Listen(uint16_t port) {
  Listener listener;
  listener.fd.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.fd.valid()) {
    return ErrnoStatus(errno, "make a socket");
  }
  const int yes = 1;
  setsockopt(listener.fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener.fd.get(), generic, sizeof address) != 0) {
    const int error = errno;
    return error == EADDRINUSE ? absl::AlreadyExistsError(fmt::format("port {} is taken", port))
                               : ErrnoStatus(error, fmt::format("bind to port {}", port));
  }
  socklen_t size = sizeof address;
  if (listen(listener.fd.get(), kBacklog) != 0 ||
      getsockname(listener.fd.get(), generic, &size) != 0) {
    return ErrnoStatus(errno, fmt::format("listen on port {}", port));
  }
  bound_.push_back(ntohs(address.sin_port));
  listeners_.push_back(std::move(listener));
  return absl::OkStatus();
}

void Relay::Accept(size_t index) {
  for (;;) {
    uint64_t id = 0;
    {
      MutexLock lock(mu_);
      if (carried_.size() >= options_.max_connections) {
        return;  // the end of one looks again
      }
      id = ++last_id_;
    }
    UniqueFd tool(
        accept4(listeners_[index].fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!tool.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) {
        continue;
      }
      if (errno != EAGAIN) {
        // Out of descriptors or memory.
        loop_->At(After(kRetry), [this, index] { loop_->Rearm(listeners_[index].watch); });
      }
      return;
    }
    auto carried = std::make_shared<Carried>(*this, id, std::move(tool));
    {
      MutexLock lock(mu_);
      carried_[id] = carried;
    }
    carried->Begin();
  }
}

void Relay::Ended(uint64_t id) {
  bool was_full = false;
  {
    MutexLock lock(mu_);
    was_full = carried_.size() >= options_.max_connections;
    carried_.erase(id);
  }
  if (was_full) {
    for (const Listener& listener : listeners_) {
      loop_->Rearm(listener.watch);
    }
  }
}

}  // namespace creel::shim
