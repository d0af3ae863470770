#include "supervisor/egress/proxy.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/base/event_loop.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/unix_socket.h"
#include "supervisor/egress/connection.h"
#include "supervisor/egress/door.h"

namespace creel::egress {
namespace {

constexpr char kSocketName[] = "egress.sock";
constexpr int kBacklog = 256;
constexpr size_t kRecordsKept = 2000;
constexpr std::chrono::milliseconds kRetryAccept{50};
constexpr size_t kMaxTried = 16u << 10;
// What `Try` is made by; no sandbox has that id.
constexpr char kTryId[] = "operator";

}  // namespace

class Proxy::Impl {
 public:
  explicit Impl(std::unique_ptr<EventLoop> loop)
      : loop_(std::move(loop)), house_(House{.loop = *loop_, .credentials = *credentials_}) {}

  ~Impl() {
    loop_->Run([this] {
      for (const auto& door : std::set<std::shared_ptr<Door>>(doors_)) {
        CloseDoor(door);
      }
    });
    // After what that has left behind.
    loop_->Run([this] {
      house_.dialer.reset();
      house_.resolver.reset();
    });
    // Its thread calls into the loop.
    credentials_.reset();
    loop_.reset();
  }

  absl::Status Configure(const EgressConfig& config) {
    absl::Status status;
    loop_->Run([&] { status = ConfigureHere(config); });
    return status;
  }

  void SetRecorder(Recorder recorder, std::function<void(const std::string&)> problem) {
    house_.recorder = [this, recorder = std::move(recorder)](const Record& record) {
      {
        MutexLock lock(mu_);
        records_.push_back(record);
        if (records_.size() > kRecordsKept) {
          records_.pop_front();
        }
      }
      return recorder ? recorder(record) : absl::OkStatus();
    };
    house_.problem = [problem = std::move(problem)](const std::string& text) {
      if (problem) {
        problem(text);
      }
    };
  }

  void SetFacts(Facts facts) {
    loop_->Run([&] { house_.facts = std::move(facts); });
  }

  absl::StatusOr<std::shared_ptr<void>> Open(DoorOptions options) {
    ASSIGN_OR_RETURN(UniqueFd listener, ListenUnix({.directory = options.directory,
                                                    .name = kSocketName,
                                                    .mode = options.socket_mode,
                                                    .owner = options.socket_owner,
                                                    .group = std::nullopt},
                                                   kBacklog));
    auto door = std::make_shared<Door>();
    door->sandbox = std::move(options.sandbox);
    door->listener = std::move(listener);
    door->peer_uid = options.peer_uid;
    door->peer_pid = std::move(options.peer_pid);
    absl::Status status;
    loop_->Run([&] {
      SetRates(*door);
      const auto cut = cuts_.find(door->sandbox);
      door->cut = cut == cuts_.end() ? "" : cut->second;
      absl::StatusOr<EventLoop::Id> watch = loop_->Watch(
          door->listener.get(), EPOLLIN, [this, weak = std::weak_ptr<Door>(door)](uint32_t) {
            if (const auto self = weak.lock()) {
              Accept(self);
            }
          });
      status = watch.status();
      if (watch.ok()) {
        door->watch = *watch;
        doors_.insert(door);
      }
    });
    if (!status.ok()) {
      return status;
    }
    // Whoever lets go of it may hold locks that the facts take: nothing is waited for.
    return std::shared_ptr<void>(
        door.get(), [this, door](void*) { loop_->Post([this, door] { CloseDoor(door); }); });
  }

  void Recheck(const std::string& sandbox) {
    loop_->Post([this, sandbox] { RecheckHere(sandbox); });
  }

  void Cut(const std::string& sandbox, const std::string& reason) {
    loop_->Run([&] {
      if (sandbox.empty()) {
        house_.all_cut = reason;
      } else {
        cuts_[sandbox] = reason;
      }
      SetCuts();
      RecheckHere(sandbox);
    });
  }

  void Restore(const std::string& sandbox) {
    loop_->Run([&] {
      if (sandbox.empty()) {
        house_.all_cut.clear();
      } else {
        cuts_.erase(sandbox);
      }
      SetCuts();
    });
  }

  [[nodiscard]] std::vector<Record> Log(const std::string& sandbox, size_t most) const {
    MutexLock lock(mu_);
    std::vector<Record> found;
    for (auto each = records_.rbegin(); each != records_.rend() && found.size() < most; ++each) {
      if (sandbox.empty() || each->sandbox == sandbox) {
        found.push_back(*each);
      }
    }
    std::reverse(found.begin(), found.end());
    return found;
  }

  [[nodiscard]] std::shared_ptr<const Rules> rules() const {
    MutexLock lock(mu_);
    return rules_;
  }

  [[nodiscard]] size_t connections() const {
    size_t count = 0;
    loop_->Run([&] { count = house_.connections; });
    return count;
  }

  // One end of a connection that is served as if it came from a sandbox of `asker`.
  absl::StatusOr<UniqueFd> Inside(const Asker& asker) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
      return ErrnoStatus(errno, "make a pair of sockets");
    }
    UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    absl::Status status;
    loop_->Run([&] {
      auto door = std::make_shared<Door>();
      door->sandbox = asker.sandbox.empty() ? kTryId : asker.sandbox;
      SetRates(*door);
      auto connection = std::make_shared<Connection>(house_, door, std::move(theirs));
      connection->SetAsker(asker);
      door->connections.insert(connection);
      status = connection->Begin();
    });
    if (!status.ok()) {
      return status;
    }
    return ours;
  }

  Credentials& credentials() { return *credentials_; }

 private:
  absl::Status ConfigureHere(const EgressConfig& config) {
    if (house_.resolver == nullptr || house_.rules->config().resolvers != config.resolvers) {
      ASSIGN_OR_RETURN(auto resolver, Resolver::Start(*loop_, config.resolvers));
      // Those who wait for the old one are told before it goes.
      house_.resolver.swap(resolver);
      house_.dialer = std::make_unique<Dialer>(*loop_, *house_.resolver, house_.tls);
    }
    house_.rules = std::make_shared<const Rules>(config);
    {
      MutexLock lock(mu_);
      rules_ = house_.rules;
    }
    credentials_->Configure(config.services);
    for (const auto& door : doors_) {
      SetRates(*door);
    }
    RecheckHere("");
    return absl::OkStatus();
  }

  void SetRates(Door& door) {
    door.requests.SetRate(house_.limits().requests_per_minute);
    door.bytes.SetRate(static_cast<double>(house_.limits().bytes_per_minute));
  }

  void SetCuts() {
    for (const auto& door : doors_) {
      const auto cut = cuts_.find(door->sandbox);
      door->cut = cut == cuts_.end() ? "" : cut->second;
    }
  }

  void RecheckHere(const std::string& sandbox) {
    for (const auto& door : std::set<std::shared_ptr<Door>>(doors_)) {
      if (sandbox.empty() || door->sandbox == sandbox) {
        for (const auto& each : std::set<std::shared_ptr<Connection>>(door->connections)) {
          each->Recheck();
        }
      }
    }
  }

  void CloseDoor(const std::shared_ptr<Door>& door) {
    door->closed = true;
    loop_->Unwatch(std::exchange(door->watch, 0));
    door->listener.reset();
    for (const auto& each : std::set<std::shared_ptr<Connection>>(door->connections)) {
      each->Cut("the sandbox was closed");
    }
    doors_.erase(door);
  }

  void Accept(const std::shared_ptr<Door>& door) {
    // A turn's worth; what is left comes with the next event.
    for (int i = 0; i < 32 && !door->closed; ++i) {
      if (door->connections.size() >= house_.limits().connections ||
          house_.connections >= house_.limits().connections_total) {
        WaitForPlace(door);
        return;
      }
      UniqueFd socket(
          accept4(door->listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!socket.valid()) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
          WaitForPlace(door);
        }
        return;
      }
      if (const absl::Status peer = CheckPeer(*door, socket.get()); !peer.ok()) {
        house_.problem(fmt::format("sandbox {}: refused a peer on egress.sock: {}", door->sandbox,
                                   std::string(peer.message())));
        continue;
      }
      auto connection = std::make_shared<Connection>(house_, door, std::move(socket));
      if (connection->Begin().ok()) {
        door->connections.insert(connection);
        connection->Step();
      }
    }
  }

  static absl::Status CheckPeer(const Door& door, int socket) {
    ASSIGN_OR_RETURN(const PeerCredentials found, CredentialsOf(socket));
    if (door.peer_uid.has_value() && found.uid != *door.peer_uid) {
      return absl::PermissionDeniedError(
          fmt::format("it is of uid {}, not {}", found.uid, *door.peer_uid));
    }
    const int expected = door.peer_pid ? door.peer_pid() : 0;
    if (expected != 0 && found.pid != expected) {
      return absl::PermissionDeniedError(
          fmt::format("it is process {}, not the container's first, {}", found.pid, expected));
    }
    return absl::OkStatus();
  }

  // Too many connections, or no descriptors: those who come wait in the kernel.
  void WaitForPlace(const std::shared_ptr<Door>& door) {
    if (std::exchange(door->waiting, true)) {
      return;
    }
    loop_->Change(door->watch, 0);
    loop_->After(kRetryAccept, [this, weak = std::weak_ptr<Door>(door)] {
      const auto self = weak.lock();
      if (self != nullptr && !self->closed) {
        self->waiting = false;
        loop_->Change(self->watch, EPOLLIN);
      }
    });
  }

  std::unique_ptr<Credentials> credentials_ = std::make_unique<Credentials>();
  std::unique_ptr<EventLoop> loop_;
  House house_;
  std::set<std::shared_ptr<Door>> doors_;
  std::map<std::string, std::string> cuts_;
  mutable Mutex mu_;
  std::deque<Record> records_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const Rules> rules_ ABSL_GUARDED_BY(mu_);
};

Proxy::Proxy(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Proxy::~Proxy() = default;

absl::StatusOr<std::unique_ptr<Proxy>> Proxy::Start(Options options) {
  ASSIGN_OR_RETURN(std::unique_ptr<EventLoop> loop, EventLoop::Start("egress"));
  auto impl = std::make_unique<Impl>(std::move(loop));
  impl->SetRecorder(std::move(options.recorder), std::move(options.problem));
  RETURN_IF_ERROR(impl->Configure(options.config));
  return std::unique_ptr<Proxy>(new Proxy(std::move(impl)));
}

void Proxy::SetFacts(Facts facts) { impl_->SetFacts(std::move(facts)); }

absl::StatusOr<std::shared_ptr<void>> Proxy::Open(DoorOptions options) {
  return impl_->Open(std::move(options));
}

absl::Status Proxy::Reload(const EgressConfig& config) { return impl_->Configure(config); }
void Proxy::Recheck(const std::string& sandbox) { impl_->Recheck(sandbox); }
void Proxy::Cut(const std::string& sandbox, const std::string& reason) {
  impl_->Cut(sandbox, reason);
}
void Proxy::Restore(const std::string& sandbox) { impl_->Restore(sandbox); }

std::vector<Record> Proxy::Log(const std::string& sandbox, size_t most) const {
  return impl_->Log(sandbox, most);
}

size_t Proxy::connections() const { return impl_->connections(); }
Credentials& Proxy::credentials() { return impl_->credentials(); }

absl::StatusOr<Verdict> Proxy::Explain(const Asker& asker, const std::string& method,
                                       const std::string& url) const {
  const std::shared_ptr<const Rules> rules = impl_->rules();
  Verdict verdict;
  if (!url.starts_with("http://")) {
    std::string authority = url;
    std::optional<uint16_t> port;
    if (url.starts_with("https://")) {
      authority = url.substr(8, url.find_first_of("/?", 8) - 8);
      port = 443;
    }
    const absl::StatusOr<Authority> to = ParseAuthority(authority, port);
    verdict = to.ok() ? rules->Tunnel(asker, *to)
                      : Verdict{.rule = "name", .reason = std::string(to.status().message())};
  } else {
    ASSIGN_OR_RETURN(const UrlTarget to, ParseUrlTarget(url));
    RequestHead head;
    head.method = method.empty() ? "GET" : method;
    head.target = url;
    verdict = NamesService(to.authority.host) ? rules->Service(asker, to, head)
                                              : rules->PlainHttp(asker, to, head);
  }
  // They point into rules that another reload may end.
  verdict.host = nullptr;
  verdict.service = nullptr;
  verdict.route = nullptr;
  return verdict;
}

absl::StatusOr<std::string> Proxy::Try(const Asker& asker, const std::string& method,
                                       const std::string& url, Deadline deadline) {
  std::string request;
  const std::string verb = method.empty() ? "GET" : method;
  if (!IsToken(verb) || url.find_first_of(" \r\n") != std::string::npos) {
    return absl::InvalidArgumentError("that is no method, or no URL");
  }
  if (url.starts_with("http://")) {
    ASSIGN_OR_RETURN(const UrlTarget to, ParseUrlTarget(url));
    request = fmt::format("{} {} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n\r\n", verb, url,
                          to.authority.host, to.authority.port);
  } else {
    std::string authority = url;
    if (url.starts_with("https://")) {
      authority = url.substr(8, url.find_first_of("/?", 8) - 8);
      authority += authority.find(':') == std::string::npos ? ":443" : "";
    }
    request = fmt::format("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", authority);
  }
  ASSIGN_OR_RETURN(const UniqueFd socket, impl_->Inside(asker));
  if (send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return ErrnoStatus(errno, "send the request");
  }
  std::string reply;
  const bool tunnel = request.starts_with("CONNECT");
  while (reply.size() < kMaxTried) {
    // A tunnel that stands says no more than that.
    if (tunnel && reply.find("\r\n\r\n") != std::string::npos &&
        reply.starts_with("HTTP/1.1 200")) {
      break;
    }
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd ready{.fd = socket.get(), .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || poll(&ready, 1, static_cast<int>(left.count())) == 0) {
      return absl::DeadlineExceededError("no complete reply came in time");
    }
    char buffer[4096];
    const ssize_t got = recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) {
      break;
    }
    reply.append(buffer, static_cast<size_t>(std::max<ssize_t>(got, 0)));
  }
  return reply;
}

}  // namespace creel::egress
