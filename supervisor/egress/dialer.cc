#include "supervisor/egress/dialer.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "supervisor/base/escape.h"

namespace creel::egress {
namespace {

// So that one address that does not answer leaves time for the next.
constexpr std::chrono::milliseconds kPerAddress{4000};

}  // namespace

absl::Status CheckAddresses(const std::vector<IpAddress>& addresses, const Destination& to) {
  if (to.trusted) {
    return absl::OkStatus();
  }
  const std::vector<IpAddress> own = OwnAddresses();
  for (const IpAddress& address : addresses) {
    if (InNetworks(address, to.networks)) {
      continue;
    }
    std::string why(WhyNotPublic(address));
    if (why.empty() && std::find(own.begin(), own.end(), address) != own.end()) {
      why = "this machine's own";
    }
    if (!why.empty()) {
      return absl::PermissionDeniedError(fmt::format("the name '{}' leads to {} ({})",
                                                     Printable(to.host, 120), address.Text(), why));
    }
  }
  return absl::OkStatus();
}

class Dialer::Attempt : public std::enable_shared_from_this<Attempt> {
 public:
  Attempt(Dialer& dialer, Destination to, Deadline deadline, Done done)
      : loop_(dialer.loop_),
        tls_(dialer.tls_),
        to_(std::move(to)),
        deadline_(deadline),
        done_(std::move(done)) {}

  void Begin(Resolver& resolver) {
    const auto left = deadline_ - std::chrono::steady_clock::now();
    timer_ = loop_.After(left, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) {
        self->timer_ = 0;
        self->End(
            absl::DeadlineExceededError(fmt::format("'{}' did not answer in time", self->Name())));
      }
    });
    if (!to_.unix_path.empty()) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      if (to_.unix_path.size() >= sizeof address.sun_path) {
        End(absl::InvalidArgumentError("the path of the upstream's socket is too long"));
        return;
      }
      std::memcpy(address.sun_path, to_.unix_path.data(), to_.unix_path.size());
      ConnectTo(reinterpret_cast<const sockaddr*>(&address), sizeof address);
      return;
    }
    if (const std::optional<IpAddress> literal = IpAddress::Parse(to_.host)) {
      OnAddresses(std::vector<IpAddress>{*literal});
      return;
    }
    resolver.Resolve(to_.host, [weak = weak_from_this()](const auto& addresses) {
      if (const auto self = weak.lock()) {
        self->OnAddresses(addresses);
      }
    });
  }

  void Cancel() {
    done_ = nullptr;
    Clean();
  }

 private:
  [[nodiscard]] std::string Name() const {
    return to_.unix_path.empty() ? fmt::format("{}:{}", Printable(to_.host, 120), to_.port)
                                 : to_.unix_path;
  }

  void OnAddresses(const absl::StatusOr<std::vector<IpAddress>>& addresses) {
    if (done_ == nullptr) {
      return;
    }
    if (!addresses.ok()) {
      End(addresses.status());
      return;
    }
    if (const absl::Status checked = CheckAddresses(*addresses, to_); !checked.ok()) {
      End(checked);
      return;
    }
    addresses_ = *addresses;
    TryNext();
  }

  void TryNext() {
    if (next_ >= addresses_.size()) {
      End(last_error_.ok() ? absl::UnavailableError(fmt::format("'{}' has no address", Name()))
                           : last_error_);
      return;
    }
    sockaddr_storage address{};
    const socklen_t size = addresses_[next_++].ToSocket(to_.port, address);
    ConnectTo(reinterpret_cast<const sockaddr*>(&address), size);
  }

  void ConnectTo(const sockaddr* address, socklen_t size) {
    UniqueFd socket(::socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket.valid()) {
      End(ErrnoStatus(errno, "make a socket"));
      return;
    }
    if (address->sa_family != AF_UNIX) {
      const int yes = 1;
      setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
      setsockopt(socket.get(), SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    }
    const int result = connect(socket.get(), address, size);
    if (result != 0 && errno != EINPROGRESS) {
      Failed(errno);
      return;
    }
    socket_ = std::move(socket);
    absl::StatusOr<EventLoop::Id> watch = loop_.Watch(socket_.get(), EPOLLIN | EPOLLOUT | EPOLLET,
                                                      [weak = weak_from_this()](uint32_t) {
                                                        if (const auto self = weak.lock()) {
                                                          self->OnReady();
                                                        }
                                                      });
    if (!watch.ok()) {
      End(watch.status());
      return;
    }
    watch_ = *watch;
    if (addresses_.size() > next_) {
      slow_ = loop_.After(kPerAddress, [weak = weak_from_this()] {
        if (const auto self = weak.lock()) {
          self->slow_ = 0;
          self->Failed(ETIMEDOUT);
        }
      });
    }
  }

  void OnReady() {
    if (stream_ == nullptr) {
      int error = 0;
      socklen_t size = sizeof error;
      if (getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        Failed(error);
        return;
      }
      sockaddr_storage peer{};
      socklen_t peer_size = sizeof peer;
      if (getpeername(socket_.get(), reinterpret_cast<sockaddr*>(&peer), &peer_size) != 0) {
        return;  // not yet
      }
      loop_.Cancel(std::exchange(slow_, 0));
      if (!to_.tls) {
        stream_ = MakePlainStream(std::move(socket_));
      } else {
        auto made = tls_.Make(std::move(socket_), to_.host, to_.ca);
        if (!made.ok()) {
          End(made.status());
          return;
        }
        stream_ = *std::move(made);
      }
    }
    switch (stream_->Handshake().kind) {
      case Io::Kind::kBlocked:
        return;
      case Io::Kind::kBytes: {
        loop_.Unwatch(std::exchange(watch_, 0));
        std::unique_ptr<Stream> stream = std::move(stream_);
        End(std::move(stream));
        return;
      }
      default:
        End(absl::UnavailableError(
            fmt::format("'{}' and TLS: {}", Name(), Printable(stream_->error(), 200))));
    }
  }

  void Failed(int error) {
    loop_.Unwatch(std::exchange(watch_, 0));
    loop_.Cancel(std::exchange(slow_, 0));
    socket_.reset();
    last_error_ = absl::UnavailableError(
        std::string(ErrnoStatus(error, fmt::format("connect to '{}'", Name())).message()));
    if (to_.unix_path.empty()) {
      TryNext();
    } else {
      End(last_error_);
    }
  }

  void End(absl::StatusOr<std::unique_ptr<Stream>> outcome) {
    Clean();
    if (const Done done = std::exchange(done_, nullptr)) {
      done(std::move(outcome));
    }
  }

  void Clean() {
    loop_.Cancel(std::exchange(timer_, 0));
    loop_.Cancel(std::exchange(slow_, 0));
    loop_.Unwatch(std::exchange(watch_, 0));
    stream_.reset();
    socket_.reset();
  }

  // These outlive the dialer, as this may: a reload makes another one.
  EventLoop& loop_;
  TlsClient& tls_;
  const Destination to_;
  const Deadline deadline_;
  Done done_;
  std::vector<IpAddress> addresses_;
  size_t next_ = 0;
  absl::Status last_error_;
  UniqueFd socket_;
  std::unique_ptr<Stream> stream_;
  EventLoop::Id watch_ = 0;
  EventLoop::Id timer_ = 0;
  EventLoop::Id slow_ = 0;
};

std::shared_ptr<void> Dialer::Dial(Destination to, Deadline deadline, Done done) {
  auto attempt = std::make_shared<Attempt>(*this, std::move(to), deadline, std::move(done));
  attempt->Begin(resolver_);
  return {attempt.get(), [attempt](void*) { attempt->Cancel(); }};
}

}  // namespace creel::egress
