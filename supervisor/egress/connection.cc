#include "supervisor/egress/connection.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/egress/exchange.h"
#include "supervisor/egress/tunnel.h"

namespace creel::egress {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr uint32_t kEvents = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
constexpr size_t kReadAtOnce = 64u << 10;
constexpr size_t kShown = 200;
// For the sandbox to take a refusal before the connection is closed.
constexpr milliseconds kLinger{2000};
constexpr milliseconds kRetryBytes{50};

std::string_view TextOf(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Error";
  }
}

// In one line of ASCII, as a header's value.
std::string HeaderText(const std::string& text) {
  std::string out = Printable(text, 512);
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return c < 0x20 || c > 0x7e; }, '?');
  return out;
}

}  // namespace

Connection::Connection(House& house, std::shared_ptr<Door> door, UniqueFd socket)
    : house_(house), door_(std::move(door)), socket_(std::move(socket)) {
  ++house_.connections;
  began_ = state_since_ = active_ = steady_clock::now();
}

Connection::~Connection() { --house_.connections; }

absl::Status Connection::Begin() {
  ASSIGN_OR_RETURN(watch_,
                   house_.loop.Watch(socket_.get(), kEvents, [weak = weak_from_this()](uint32_t e) {
                     if (const auto self = weak.lock()) {
                       self->hung_up_ = self->hung_up_ || (e & (EPOLLHUP | EPOLLERR)) != 0;
                       self->Step();
                     }
                   }));
  ArmTimer();
  return absl::OkStatus();
}

void Connection::Step() {
  // A carrier's callbacks may come while it steps.
  if (std::exchange(stepping_, true)) {
    again_ = true;
    return;
  }
  const std::shared_ptr<Connection> self = shared_from_this();
  do {
    again_ = false;
    if (state_ != State::kClosed && !Flush()) {
      Cut("the sandbox hung up");
    }
    switch (state_) {
      case State::kHead:
        ReadHead();
        break;
      case State::kSocks:
        ReadSocks();
        break;
      case State::kCarrying:
        if (hung_up_) {
          carrier_->OnHangUp();
        }
        if (state_ == State::kCarrying) {
          carrier_->Step();
        }
        break;
      case State::kLingering:
        // What it still sends is not wanted; it is to read the reply, and hang up.
        for (;;) {
          in_.clear();
          const Io io = Read(kReadAtOnce);
          if (io.kind == Io::Kind::kBytes) {
            continue;
          }
          if (io.kind != Io::Kind::kBlocked) {
            Close();
          } else if (out_.empty()) {
            shutdown(socket_.get(), SHUT_WR);
          }
          break;
        }
        break;
      case State::kWaiting:
      case State::kClosed:
        break;
    }
    dead_.reset();
  } while (again_ && state_ != State::kClosed);
  stepping_ = false;
}

Io Connection::Read(size_t most) {
  const size_t old = in_.size();
  in_.resize(old + most);
  ssize_t got = 0;
  do {
    got = recv(socket_.get(), in_.data() + old, most, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  in_.resize(old + static_cast<size_t>(std::max<ssize_t>(got, 0)));
  if (got > 0) {
    return {.kind = Io::Kind::kBytes, .bytes = static_cast<size_t>(got)};
  }
  return {.kind = got == 0          ? Io::Kind::kEnd
                  : errno == EAGAIN ? Io::Kind::kBlocked
                                    : Io::Kind::kFailed};
}

bool Connection::Flush() {
  size_t sent = 0;
  while (sent < out_.size()) {
    const ssize_t put =
        send(socket_.get(), out_.data() + sent, out_.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) {
      continue;
    }
    if (put < 0) {
      if (errno != EAGAIN) {
        return false;
      }
      break;
    }
    sent += static_cast<size_t>(put);
  }
  out_.erase(0, sent);
  return true;
}

size_t Connection::Allowance() {
  const double left = door_->bytes.Left(steady_clock::now());
  if (left < 1) {
    if (slow_ == 0) {
      slow_ = house_.loop.After(kRetryBytes, [weak = weak_from_this()] {
        if (const auto self = weak.lock()) {
          self->slow_ = 0;
          self->Step();
        }
      });
    }
    return 0;
  }
  return static_cast<size_t>(std::min(left, double{1u << 20}));
}

void Connection::Carried(size_t bytes) {
  door_->bytes.Take(static_cast<double>(bytes));
  active_ = steady_clock::now();
}

absl::Status Connection::WatchUpstream(int fd) {
  UnwatchUpstream();
  ASSIGN_OR_RETURN(upstream_watch_,
                   house_.loop.Watch(fd, kEvents, [weak = weak_from_this()](uint32_t) {
                     if (const auto self = weak.lock()) {
                       self->Step();
                     }
                   }));
  return absl::OkStatus();
}

void Connection::UnwatchUpstream() { house_.loop.Unwatch(std::exchange(upstream_watch_, 0)); }

void Connection::StepSoon() {
  house_.loop.Post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->Step();
    }
  });
}

void Connection::ReadHead() {
  const size_t most = house_.limits().head_bytes;
  bool ended = false;
  for (;;) {
    if (!in_.empty() && in_[0] == 5 && out_.empty() && kept_.stream == nullptr && !recorded_) {
      state_ = State::kSocks;
      socks_ = true;
      again_ = true;
      return;
    }
    absl::StatusOr<std::optional<size_t>> end = FindHeadEnd(in_, searched_, most);
    if (!end.ok()) {
      RefuseUnread(absl::IsResourceExhausted(end.status()) ? 431 : 400,
                   std::string(end.status().message()));
      return;
    }
    searched_ = in_.size();
    if (end->has_value()) {
      absl::StatusOr<RequestHead> head = ParseRequestHead(std::string_view(in_).substr(0, **end));
      in_.erase(0, **end);
      searched_ = 0;
      if (!head.ok()) {
        RefuseUnread(400, std::string(head.status().message()));
        return;
      }
      OnRequest(*std::move(head));
      return;
    }
    if (ended) {
      Close();
      return;
    }
    const bool fresh = in_.empty();
    const Io io = Read(std::min(kReadAtOnce, most + 1 - std::min(in_.size(), most)));
    if (io.kind == Io::Kind::kBytes) {
      if (fresh) {
        // The head's time runs from its first byte.
        state_since_ = active_ = steady_clock::now();
        ArmTimer();
      }
      continue;
    }
    if (io.kind == Io::Kind::kBlocked) {
      return;
    }
    ended = true;
    if (io.kind == Io::Kind::kFailed || in_.empty()) {
      Close();
      return;
    }
  }
}

Asker Connection::Ask() const {
  Asker asker = made_up_.has_value() ? *made_up_
                : house_.facts       ? house_.facts(door_->sandbox)
                                     : Asker();
  asker.sandbox = door_->sandbox;
  return asker;
}

bool Connection::TakeRequest() {
  asker_ = Ask();
  if (door_->requests.Left(steady_clock::now()) < 1) {
    const std::string reason =
        fmt::format("more than {} requests in a minute", house_.limits().requests_per_minute);
    RefuseByRate(reason);
    return false;
  }
  door_->requests.Take(1);
  const std::string& cut = house_.all_cut.empty() ? door_->cut : house_.all_cut;
  if (!cut.empty()) {
    Decided({.rule = "cut", .reason = cut}, "request", "", "", "");
    Refuse(403, "cut", cut);
    return false;
  }
  return true;
}

void Connection::RefuseByRate(const std::string& reason) {
  // One a second is told, so that a sandbox cannot fill the record at will.
  const auto now = steady_clock::now();
  if (now < door_->rate_told + std::chrono::seconds(1)) {
    ++door_->rate_untold;
  } else {
    const uint64_t untold = std::exchange(door_->rate_untold, 0);
    door_->rate_told = now;
    Decided(
        {.rule = "rate",
         .reason = untold == 0 ? reason : fmt::format("{}; {} more before this", reason, untold)},
        "request", "", "", "");
  }
  Refuse(429, "rate", reason);
}

void Connection::RefuseUnread(int status, const std::string& reason) {
  if (TakeRequest()) {
    Decided({.rule = "request", .reason = reason}, "request", "", "", "");
    Refuse(status, "request", reason);
  }
}

void Connection::SocksReply(uint8_t code) {
  // Version, code, reserved, and an address that means nothing here.
  const char reply[] = {5, static_cast<char>(code), 0, 1, 0, 0, 0, 0, 0, 0};
  out_.append(reply, sizeof reply);
}

// RFC 1928, names only: what resolves a name itself has no use here.
void Connection::ReadSocks() {
  const auto byte = [this](size_t i) { return static_cast<uint8_t>(in_[i]); };
  for (;;) {
    if (!greeted_ && in_.size() >= 2 && in_.size() >= 2u + byte(1)) {
      const std::string_view methods = std::string_view(in_).substr(2, byte(1));
      const bool open = methods.find('\0') != std::string_view::npos;
      in_.erase(0, 2 + methods.size());
      out_.append(open ? std::string_view("\x05\x00", 2) : std::string_view("\x05\xff", 2));
      if (!open) {
        if (TakeRequest()) {
          Decided({.rule = "request", .reason = "a SOCKS client that insists on a password"},
                  "request", "SOCKS", "", "");
          Finish(0, false);
        }
        return;
      }
      greeted_ = true;
      // What it says next waits for our answer.
      if (!Flush()) {
        Close();
        return;
      }
      continue;
    }
    if (greeted_ && in_.size() >= 5) {
      const size_t name_size = byte(4);
      if (byte(0) != 5 || byte(1) != 1 || byte(3) != 3) {
        const std::string reason = byte(1) != 1 ? "SOCKS: only CONNECT is known"
                                                : "SOCKS: a target is a name (socks5h), not an "
                                                  "IP address";
        if (TakeRequest()) {
          Decided({.rule = "name", .reason = reason}, "tunnel", "SOCKS", "", "");
          Refuse(403, "name", reason);
        }
        return;
      }
      if (in_.size() >= 5 + name_size + 2) {
        const std::string name = in_.substr(5, name_size);
        const int port = byte(5 + name_size) * 256 + byte(6 + name_size);
        in_.erase(0, 7 + name_size);
        if (!TakeRequest()) {
          return;
        }
        const absl::StatusOr<Authority> to =
            ParseAuthority(fmt::format("{}:{}", name, port), std::nullopt);
        if (!to.ok()) {
          const std::string reason(to.status().message());
          Decided({.rule = "name", .reason = reason}, "tunnel", "SOCKS", name, "");
          Refuse(403, "name", reason);
          return;
        }
        OpenTunnel(*to, /*socks=*/true);
        return;
      }
    }
    const Io io = Read(512);
    if (io.kind == Io::Kind::kBlocked) {
      return;
    }
    if (io.kind != Io::Kind::kBytes) {
      Close();
      return;
    }
  }
}

void Connection::OnRequest(RequestHead head) {
  if (!TakeRequest()) {
    return;
  }
  if (head.method == "CONNECT") {
    OnConnect(head);
  } else {
    OnPlain(std::move(head));
  }
}

void Connection::OnConnect(const RequestHead& head) {
  const auto refuse = [&](int status, const std::string& rule, const std::string& reason) {
    Decided({.rule = rule, .reason = reason}, "tunnel", "CONNECT", head.target, "");
    Refuse(status, rule, reason);
  };
  const absl::StatusOr<Framing> framing = FramingOf(head);
  if (!framing.ok() || framing->kind == Framing::Kind::kChunked || framing->length != 0) {
    refuse(400, "request", "a CONNECT has no body");
    return;
  }
  const absl::StatusOr<Authority> to = ParseAuthority(head.target, std::nullopt);
  if (!to.ok()) {
    refuse(403, "name", std::string(to.status().message()));
    return;
  }
  if (const Header* const host = FindHeader(head.headers, "Host")) {
    const absl::StatusOr<Authority> named = ParseAuthority(host->value, to->port);
    if (!named.ok() || !(*named == *to)) {
      refuse(400, "request", "Host names another place than the target");
      return;
    }
  }
  OpenTunnel(*to, /*socks=*/false);
}

void Connection::OpenTunnel(const Authority& to, bool socks) {
  const Verdict verdict = house_.rules->Tunnel(asker_, to);
  if (!Decided(verdict, "tunnel", socks ? "SOCKS" : "CONNECT",
               fmt::format("{}:{}", to.host, to.port), "")) {
    return;
  }
  if (!verdict.allowed) {
    RefuseBy(verdict);
    return;
  }
  state_ = State::kCarrying;
  state_since_ = active_ = steady_clock::now();
  auto tunnel = std::make_unique<Tunnel>(*this, house_.rules, *verdict.host, to);
  Tunnel* const raw = tunnel.get();
  carrier_ = std::move(tunnel);
  ArmTimer();
  raw->Begin();
  again_ = true;
}

void Connection::OnPlain(RequestHead head) {
  std::string target = "-";
  std::string path;
  const auto refuse = [&](int status, const std::string& rule, const std::string& reason) {
    Decided({.rule = rule, .reason = reason}, "request", head.method, target, path);
    Refuse(status, rule, reason);
  };
  if (head.target[0] == '/' || head.target == "*") {
    refuse(400, "request", "this is a proxy: the target of a request begins with http://");
    return;
  }
  const absl::StatusOr<UrlTarget> to = ParseUrlTarget(head.target);
  if (!to.ok()) {
    target = head.target.substr(0, kShown);
    refuse(403, "name", std::string(to.status().message()));
    return;
  }
  target = fmt::format("{}:{}", to->authority.host, to->authority.port);
  path = to->path + (to->has_query ? "?***" : "");
  const Header* const host = FindHeader(head.headers, "Host");
  if (host == nullptr && head.minor >= 1) {
    refuse(400, "request", "there is no Host");
    return;
  }
  if (host != nullptr) {
    const absl::StatusOr<Authority> named = ParseAuthority(host->value, 80);
    if (!named.ok() || !(*named == to->authority)) {
      refuse(400, "request", "Host names another place than the target");
      return;
    }
  }
  if (const absl::StatusOr<Framing> framing = FramingOf(head); !framing.ok()) {
    refuse(400, "request", std::string(framing.status().message()));
    return;
  }
  const bool service = NamesService(to->authority.host);
  const Verdict verdict = service ? house_.rules->Service(asker_, *to, head)
                                  : house_.rules->PlainHttp(asker_, *to, head);
  if (!Decided(verdict, service ? "service" : "http", head.method, target, path)) {
    return;
  }
  if (!verdict.allowed) {
    RefuseBy(verdict);
    return;
  }
  state_ = State::kCarrying;
  state_since_ = active_ = steady_clock::now();
  auto exchange = std::make_unique<Exchange>(*this, house_.rules, verdict, *to, std::move(head));
  Exchange* const raw = exchange.get();
  carrier_ = std::move(exchange);
  ArmTimer();
  raw->Begin();
  again_ = true;
}

bool Connection::Decided(const Verdict& verdict, const std::string& kind, const std::string& method,
                         const std::string& target, const std::string& path) {
  record_ = {};
  record_.number = ++house_.records;
  record_.at = std::chrono::system_clock::now();
  record_.sandbox = door_->sandbox;
  record_.session = Printable(asker_.session, 512);
  record_.level = asker_.level.empty() ? "stranger" : asker_.level;
  record_.allowed = verdict.allowed;
  record_.rule = verdict.rule;
  record_.kind = kind;
  record_.method = Printable(method, 40);
  record_.target = Printable(target, kShown);
  record_.path = Printable(path, kShown);
  record_.reason = Printable(verdict.reason, 512);
  recorded_ = true;
  began_ = steady_clock::now();
  if (!house_.recorder) {
    return true;
  }
  const absl::Status written = house_.recorder(record_);
  if (written.ok() || !verdict.allowed) {
    return true;
  }
  record_.allowed = false;
  record_.rule = "record";
  Refuse(503, "record", "what goes out is written down first, and cannot be now");
  return false;
}

void Connection::Ended(int status, const std::string& reason) {
  if (!std::exchange(recorded_, false)) {
    return;
  }
  record_.phase = Record::Phase::kEnded;
  record_.at = std::chrono::system_clock::now();
  record_.status = status;
  if (carrier_ != nullptr) {
    record_.bytes_up = carrier_->bytes_up();
    record_.bytes_down = carrier_->bytes_down();
  }
  record_.took =
      std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - began_);
  if (!reason.empty()) {
    record_.reason = Printable(reason, 512);
  }
  if (house_.recorder) {
    static_cast<void>(house_.recorder(record_));
  }
}

void Connection::RefuseBy(const Verdict& verdict) {
  Refuse(403, verdict.rule, verdict.reason, verdict.add);
}

void Connection::Refuse(int status, const std::string& rule, const std::string& reason,
                        const std::string& add) {
  Ended(status, reason);
  if (carrier_ != nullptr) {
    dead_ = std::move(carrier_);
  }
  UnwatchUpstream();
  if (socks_) {
    SocksReply(status == 403 || status == 429 ? 2 : status == 504 ? 6 : 4);
  } else {
    std::string body =
        fmt::format("creel: refused by '{}': {}\n", Printable(rule, 200), Printable(reason, 512));
    if (!add.empty()) {
      body += fmt::format("To allow it, the operator would add:\n\n  {}\n", Printable(add, 1024));
    }
    out_ += fmt::format(
        "HTTP/1.1 {} {}\r\nX-Creel-Reason: {}: {}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"
        "{}",
        status, TextOf(status), HeaderText(rule), HeaderText(reason), body.size(), body);
  }
  state_ = State::kLingering;
  state_since_ = active_ = steady_clock::now();
  ArmTimer();
  StepSoon();
}

void Connection::Finish(int status, bool keep, const std::string& reason) {
  Ended(status, reason);
  if (carrier_ != nullptr) {
    dead_ = std::move(carrier_);
  }
  UnwatchUpstream();
  state_since_ = active_ = steady_clock::now();
  if (!keep) {
    state_ = State::kLingering;
    StepSoon();
  } else {
    state_ = State::kHead;
    searched_ = 0;
    again_ = true;
  }
  ArmTimer();
}

void Connection::Recheck() {
  const std::string& cut = house_.all_cut.empty() ? door_->cut : house_.all_cut;
  if (!cut.empty()) {
    Cut(cut);
    return;
  }
  if (state_ != State::kCarrying) {
    return;
  }
  const Verdict verdict = carrier_->Again(*house_.rules, Ask());
  if (!verdict.allowed) {
    Cut(fmt::format("cut: {}: {}", verdict.rule, verdict.reason));
  }
}

void Connection::Cut(const std::string& why) {
  Ended(0, why);
  Close();
}

void Connection::ArmTimer() {
  house_.loop.Cancel(std::exchange(timer_, 0));
  const EgressLimits& limits = house_.limits();
  steady_clock::time_point when = active_ + limits.idle_timeout;
  switch (state_) {
    case State::kHead:
    case State::kSocks:
      // An idle connection between two requests has more time than a head that does not end.
      if (!in_.empty() || kept_.stream == nullptr) {
        when = state_since_ + limits.head_timeout;
      }
      break;
    case State::kLingering:
      when = state_since_ + kLinger;
      break;
    case State::kWaiting:
    case State::kCarrying:
      when = std::min(when, state_since_ + limits.total_timeout);
      break;
    case State::kClosed:
      return;
  }
  timer_ = house_.loop.After(when - steady_clock::now(), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->timer_ = 0;
      self->OnTimer();
    }
  });
}

void Connection::OnTimer() {
  const auto now = steady_clock::now();
  const EgressLimits& limits = house_.limits();
  if (state_ == State::kCarrying) {
    if (now - state_since_ >= limits.total_timeout) {
      Cut("it took longer than total_timeout allows");
    } else if (now - active_ >= limits.idle_timeout) {
      Cut("nothing was carried for as long as idle_timeout allows");
    } else {
      ArmTimer();
    }
    return;
  }
  if (state_ == State::kHead && !in_.empty()) {
    RefuseUnread(408, "its head was not complete in time");
    Step();
    return;
  }
  Close();
}

void Connection::Close() {
  if (state_ == State::kClosed) {
    return;
  }
  Ended(0, "the connection ended");
  state_ = State::kClosed;
  house_.loop.Cancel(std::exchange(timer_, 0));
  house_.loop.Cancel(std::exchange(slow_, 0));
  house_.loop.Unwatch(std::exchange(watch_, 0));
  UnwatchUpstream();
  if (carrier_ != nullptr) {
    dead_ = std::move(carrier_);
  }
  kept_ = {};
  socket_.reset();
  // The door may hold the last reference; Step holds one while it runs.
  const std::shared_ptr<Connection> self = shared_from_this();
  door_->connections.erase(self);
  house_.loop.Post([self] {});
}

}  // namespace creel::egress
