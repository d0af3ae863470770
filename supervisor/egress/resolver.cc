#include "supervisor/egress/resolver.h"

#include <ares.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/epoll.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace creel::egress {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kLongest{300};
// An answer that says no is not asked for again at once.
constexpr seconds kNegative{2};
constexpr size_t kMaxCached = 4096;
constexpr size_t kMaxAsking = 1024;
constexpr int kTimeoutMs = 2000;
constexpr int kTries = 2;

absl::Status ToStatus(const std::string& host, int status) {
  switch (status) {
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_EBADNAME:
      return absl::NotFoundError(fmt::format("the name '{}' has no address", host));
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION:
      return absl::CancelledError("the resolver ends");
    default:
      return absl::UnavailableError(
          fmt::format("the name '{}' cannot be resolved: {}", host, ares_strerror(status)));
  }
}

// Made once for the process, never torn down.
int Library() {
  static const int status = ares_library_init(ARES_LIB_INIT_ALL);
  return status;
}

}  // namespace

struct Resolver::Question {
  Resolver* resolver;
  std::string host;
};

absl::StatusOr<std::unique_ptr<Resolver>> Resolver::Start(EventLoop& loop,
                                                          const std::vector<std::string>& servers) {
  std::unique_ptr<Resolver> resolver(new Resolver(loop));
  ares_options options{};
  options.flags = ARES_FLAG_NOSEARCH;
  options.timeout = kTimeoutMs;
  options.tries = kTries;
  char only_dns[] = "b";
  char with_hosts[] = "fb";
  options.lookups = servers.empty() ? with_hosts : only_dns;
  options.sock_state_cb = [](void* data, ares_socket_t fd, int readable, int writable) {
    static_cast<Resolver*>(data)->OnSocket(fd, readable != 0, writable != 0);
  };
  options.sock_state_cb_data = resolver.get();
  int status = Library();
  if (status == ARES_SUCCESS) {
    status = ares_init_options(&resolver->channel_, &options,
                               ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                   ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB);
  }
  if (status != ARES_SUCCESS) {
    return absl::InternalError(fmt::format("start the resolver: {}", ares_strerror(status)));
  }
  if (!servers.empty()) {
    const std::string list = fmt::format("{}", fmt::join(servers, ","));
    status = ares_set_servers_ports_csv(resolver->channel_, list.c_str());
    if (status != ARES_SUCCESS) {
      return absl::InvalidArgumentError(
          fmt::format("'egress.resolvers' ({}): {}", list, ares_strerror(status)));
    }
  }
  return resolver;
}

Resolver::~Resolver() {
  if (channel_ != nullptr) {
    ares_destroy(channel_);
  }
  loop_.Cancel(timer_);
  for (const auto& [fd, watched] : sockets_) {
    loop_.Unwatch(watched.watch);
  }
}

void Resolver::Resolve(const std::string& host, Done done) {
  const auto now = std::chrono::steady_clock::now();
  if (const auto cached = cache_.find(host); cached != cache_.end()) {
    if (cached->second.until > now) {
      // A copy: `done` may ask again.
      const absl::StatusOr<Addresses> answer = cached->second.answer;
      done(answer);
      return;
    }
    cache_.erase(cached);
  }
  const auto asking = asking_.find(host);
  if (asking != asking_.end()) {
    asking->second.push_back(std::move(done));
    return;
  }
  if (asking_.size() >= kMaxAsking) {
    done(absl::UnavailableError("too many names are being resolved"));
    return;
  }
  asking_[host].push_back(std::move(done));
  ares_addrinfo_hints hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = ARES_AI_NOSORT;
  // May answer at once.
  ares_getaddrinfo(
      channel_, host.c_str(), nullptr, &hints,
      [](void* data, int status, int /*timeouts*/, ares_addrinfo* found) {
        const std::unique_ptr<Question> question(static_cast<Question*>(data));
        question->resolver->Answer(question->host, status, found);
        ares_freeaddrinfo(found);
      },
      new Question{this, host});
  ArmTimer();
}

void Resolver::Answer(const std::string& host, int status, const ares_addrinfo* found) {
  absl::StatusOr<Addresses> answer = ToStatus(host, status);
  seconds keep = kNegative;
  if (status == ARES_SUCCESS && found != nullptr) {
    Addresses addresses;
    keep = kLongest;
    for (const ares_addrinfo_node* node = found->nodes; node != nullptr; node = node->ai_next) {
      if (const std::optional<IpAddress> address = IpAddress::From(*node->ai_addr)) {
        addresses.push_back(*address);
        keep = std::min(keep, seconds(std::max(node->ai_ttl, 0)));
      }
    }
    // A name on the way may be changed sooner than where it leads.
    for (const ares_addrinfo_cname* each = found->cnames; each != nullptr; each = each->next) {
      keep = std::min(keep, seconds(std::max(each->ttl, 0)));
    }
    std::stable_sort(addresses.begin(), addresses.end(),
                     [](const IpAddress& a, const IpAddress& b) { return !a.v6 && b.v6; });
    if (addresses.empty()) {
      answer = ToStatus(host, ARES_ENODATA);
    } else {
      answer = std::move(addresses);
    }
  }
  const auto asking = asking_.extract(host);
  if (keep.count() > 0 && !absl::IsCancelled(answer.status())) {
    if (cache_.size() >= kMaxCached) {
      cache_.clear();
    }
    cache_.insert_or_assign(host, Cached{answer, std::chrono::steady_clock::now() + keep});
  }
  if (!asking.empty()) {
    for (const Done& done : asking.mapped()) {
      done(answer);
    }
  }
}

void Resolver::OnSocket(int fd, bool readable, bool writable) {
  const uint32_t events =
      (readable ? uint32_t{EPOLLIN} : 0U) | (writable ? uint32_t{EPOLLOUT} : 0U);
  const auto known = sockets_.find(fd);
  if (events == 0) {
    if (known != sockets_.end()) {
      loop_.Unwatch(known->second.watch);
      sockets_.erase(known);
    }
    return;
  }
  if (known != sockets_.end()) {
    loop_.Change(known->second.watch, events);
    return;
  }
  absl::StatusOr<EventLoop::Id> watch = loop_.Watch(fd, events, [this, fd](uint32_t ready) {
    const bool in = (ready & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0;
    const bool out = (ready & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0;
    ares_process_fd(channel_, in ? fd : ARES_SOCKET_BAD, out ? fd : ARES_SOCKET_BAD);
    ArmTimer();
  });
  // Without it the question times out.
  if (watch.ok()) {
    sockets_[fd] = {.watch = *watch, .events = events};
  }
}

void Resolver::ArmTimer() {
  loop_.Cancel(std::exchange(timer_, 0));
  timeval longest{};
  timeval* const left = ares_timeout(channel_, nullptr, &longest);
  if (left == nullptr) {
    return;
  }
  const auto delay = seconds(left->tv_sec) + std::chrono::microseconds(left->tv_usec);
  timer_ = loop_.After(delay + milliseconds(1), [this] {
    timer_ = 0;
    ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    ArmTimer();
  });
}

}  // namespace creel::egress
