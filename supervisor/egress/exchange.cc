#include "supervisor/egress/exchange.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/egress/rewrite.h"
#include "supervisor/egress/tunnel.h"

namespace creel::egress {
namespace {

constexpr size_t kPiece = 64u << 10;
// What may wait for a side that is slower than the other.
constexpr size_t kMaxWaiting = 256u << 10;
// Pieces in one turn; less where each byte is looked at, as all sandboxes share one thread.
constexpr int kTurns = 16;
constexpr int kMaskedTurns = 1;
// After this long without a byte a reply pauses.
constexpr std::chrono::milliseconds kPause{30};

// Whether a connection that was kept is still there, and silent.
bool IsQuiet(int fd) {
  char byte = 0;
  return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

// The value of the header that is there once; else null.
const std::string* Once(const std::vector<Header>& headers, std::string_view name) {
  return CountHeaders(headers, name) == 1 ? &FindHeader(headers, name)->value : nullptr;
}

// Whether `reply`, a 101, takes the handshake of `request`.
bool IsWebSocket(const RequestHead& request, const ResponseHead& reply) {
  const std::string* const key = Once(request.headers, "Sec-WebSocket-Key");
  const std::string* const upgrade = Once(reply.headers, "Upgrade");
  const std::string* const accept = Once(reply.headers, "Sec-WebSocket-Accept");
  return key != nullptr && upgrade != nullptr && accept != nullptr &&
         EqualsIgnoreCase(*upgrade, "websocket") && *accept == WebSocketAccept(*key);
}

// Whether a request to the one goes where one to the other does, and with the same credential.
bool IsSamePlace(const EgressService& a, const EgressService& b) {
  EgressCredential credential = a.credential;
  credential.refresh = b.credential.refresh;
  return a.url == b.url && a.ca == b.ca && credential == b.credential;
}

Framing FramingOrNone(const RequestHead& head) {
  const absl::StatusOr<Framing> framing = FramingOf(head);
  return framing.ok() ? *framing : Framing{};
}

}  // namespace

Exchange::Exchange(Connection& connection, std::shared_ptr<const Rules> rules,
                   const Verdict& verdict, UrlTarget to, RequestHead head)
    : connection_(connection),
      rules_(std::move(rules)),
      service_(verdict.service),
      route_(verdict.route),
      host_(verdict.host),
      to_(std::move(to)),
      head_(std::move(head)),
      framing_(FramingOrNone(head_)),
      body_(framing_) {}

Exchange::~Exchange() { connection_.house().loop.Cancel(pause_); }

void Exchange::Begin() {
  if (const Header* const expect = FindHeader(head_.headers, "Expect")) {
    if (!EqualsIgnoreCase(expect->value, "100-continue")) {
      connection_.Refuse(417, "request", "only 100-continue can be expected");
      return;
    }
    if (head_.minor >= 1) {
      connection_.out() += "HTTP/1.1 100 Continue\r\n\r\n";
    }
  }
  if (service_ == nullptr || service_->credential.kind == EgressCredential::Kind::kNone) {
    OnSecret(std::shared_ptr<const Secret>());
    return;
  }
  connection_.house().credentials.Get(
      service_->name,
      [this, alive = std::weak_ptr<int>(alive_), &loop = connection_.house().loop,
       here = std::this_thread::get_id()](absl::StatusOr<std::shared_ptr<const Secret>> secret) {
        if (std::this_thread::get_id() == here) {
          // Also from a reload, long after this was left.
          if (!alive.expired()) {
            OnSecret(secret);
          }
          return;
        }
        loop.Post([this, alive, secret = std::move(secret)] {
          if (!alive.expired()) {
            OnSecret(secret);
          }
        });
      });
}

void Exchange::OnSecret(const absl::StatusOr<std::shared_ptr<const Secret>>& secret) {
  if (!secret.ok()) {
    connection_.Refuse(503, fmt::format("service {}", service_->name),
                       "its credential cannot be had; the operator finds the reason in the log");
    connection_.house().problem(fmt::format("the credential of service '{}': {}", service_->name,
                                            std::string(secret.status().message())));
    return;
  }
  secret_ = *secret;
  masker_ = secret_ == nullptr ? std::make_unique<Masker>(std::vector<std::string>())
                               : std::make_unique<Masker>(secret_->tree);
  Connect();
}

void Exchange::Connect() {
  Rewrite rewrite;
  if (service_ != nullptr) {
    const ServiceUrl split = SplitServiceUrl(*service_);
    destination_ = split.destination;
    rewrite.host = split.host;
    rewrite.base = split.base;
    key_ = fmt::format("service\n{}\n{}\n{}", service_->name, service_->url, service_->ca);
    url_ = service_->url;
    while (url_.ends_with('/')) {
      url_.pop_back();
    }
  } else {
    destination_.host = to_.authority.host;
    destination_.port = to_.authority.port;
    destination_.networks = host_->addresses;
    rewrite.host = to_.authority.port == 80
                       ? to_.authority.host
                       : fmt::format("{}:{}", to_.authority.host, to_.authority.port);
    key_ = fmt::format("http\n{}:{}\n{}", to_.authority.host, to_.authority.port,
                       fmt::join(host_->addresses, ","));
  }
  with_upgrade_ = service_ != nullptr && FindHeader(head_.headers, "Upgrade") != nullptr;
  rewrite.service = service_;
  rewrite.secret = secret_.get();
  rewrite.framing = framing_;
  rewrite.upgrade = with_upgrade_;
  up_ = UpstreamHead(head_, to_, rewrite);
  body_ended_ = body_.done();

  Connection::Kept kept = std::exchange(connection_.kept(), {});
  if (kept.stream != nullptr && kept.key == key_ && IsQuiet(kept.stream->fd())) {
    Send(std::move(kept.stream));
    return;
  }
  House& house = connection_.house();
  dial_ = house.dialer->Dial(
      destination_, After(house.limits().connect_timeout),
      [this](absl::StatusOr<std::unique_ptr<Stream>> stream) { OnDialed(std::move(stream)); });
}

void Exchange::OnDialed(absl::StatusOr<std::unique_ptr<Stream>> stream) {
  if (!stream.ok()) {
    if (service_ == nullptr) {
      RefuseDial(connection_, stream.status());
      return;
    }
    // What the operator's own upstream is called is not the sandbox's business.
    connection_.Refuse(absl::IsDeadlineExceeded(stream.status()) ? 504 : 502,
                       fmt::format("service {}", service_->name), "its upstream cannot be reached");
    connection_.house().problem(fmt::format("the upstream of service '{}': {}", service_->name,
                                            std::string(stream.status().message())));
    return;
  }
  Send(*std::move(stream));
}

void Exchange::Send(std::unique_ptr<Stream> stream) {
  upstream_ = std::move(stream);
  if (const absl::Status watched = connection_.WatchUpstream(upstream_->fd()); !watched.ok()) {
    connection_.Refuse(503, "supervisor", std::string(watched.message()));
    return;
  }
  connection_.StepSoon();
  // At once where this is within a step; harmless where it is not.
  connection_.again_ = true;
}

void Exchange::Step() {
  if (upstream_ == nullptr) {
    return;
  }
  const int turns = secret_ == nullptr ? kTurns : kMaskedTurns;
  for (int turn = 0; turn < turns; ++turn) {
    bool moved = false;
    if (!MoveRequest(moved) || !MoveReply(moved)) {
      return;
    }
    if (!moved) {
      return;
    }
  }
  connection_.StepSoon();
}

void Exchange::OnHangUp() { connection_.Cut("the sandbox hung up"); }

bool Exchange::Fail(int status, const std::string& reason) {
  if (!replied_) {
    connection_.Refuse(status,
                       service_ != nullptr ? fmt::format("service {}", service_->name)
                                           : fmt::format("host {}", host_->name),
                       reason);
  } else {
    connection_.Flush();
    connection_.Cut(reason);
  }
  return false;
}

bool Exchange::FailMalformed(const std::string& part, const absl::Status& why) {
  if (service_ != nullptr) {
    return Fail(502, fmt::format("the reply's {} is malformed", part));
  }
  return Fail(502,
              fmt::format("the reply's {} is malformed: {}", part, std::string(why.message())));
}

bool Exchange::MoveRequest(bool& moved) {
  while (!up_broken_ && up_.size() < kMaxWaiting && (upgraded_ || !body_.done())) {
    std::string& in = connection_.in();
    if (in.empty()) {
      const size_t allowed = std::min(connection_.Allowance(), kPiece);
      if (allowed == 0) {
        break;
      }
      const Io io = connection_.Read(allowed);
      if (io.kind == Io::Kind::kBlocked) {
        break;
      }
      if (io.kind != Io::Kind::kBytes) {
        connection_.Cut(upgraded_ ? "" : "the sandbox hung up in the middle of its request");
        return false;
      }
    }
    if (!TakeBody()) {
      return false;
    }
    moved = true;
  }
  return WriteUpstream(moved);
}

bool Exchange::TakeBody() {
  std::string& in = connection_.in();
  if (upgraded_) {
    bytes_up_ += in.size();
    connection_.Carried(in.size());
    up_ += std::exchange(in, {});
    return true;
  }
  std::string plain;
  const absl::StatusOr<size_t> taken = body_.Take(in, plain, kPiece);
  if (!taken.ok()) {
    return Fail(400, std::string(taken.status().message()));
  }
  in.erase(0, *taken);
  connection_.Carried(*taken);
  bytes_up_ += plain.size();
  if (route_ != nullptr && body_.bytes() > route_->max_body_bytes) {
    return Fail(413, fmt::format("the body has more than {} bytes", route_->max_body_bytes));
  }
  if (framing_.kind == Framing::Kind::kChunked) {
    AppendChunk(plain, up_);
    if (body_.done()) {
      up_ += "0\r\n\r\n";
    }
  } else {
    up_ += plain;
  }
  body_ended_ = body_.done();
  return true;
}

bool Exchange::WriteUpstream(bool& moved) {
  size_t written = 0;
  while (!up_broken_ && written < up_.size()) {
    const Io io = upstream_->Write(up_.data() + written, up_.size() - written);
    if (io.kind == Io::Kind::kBlocked) {
      break;
    }
    if (io.kind != Io::Kind::kBytes) {
      // It may have said why before it hung up.
      up_broken_ = true;
      break;
    }
    written += io.bytes;
    moved = true;
  }
  up_.erase(0, up_broken_ ? up_.size() : written);
  return true;
}

bool Exchange::MoveReply(bool& moved) {
  if (connection_.out().size() >= kMaxWaiting && !connection_.Flush()) {
    connection_.Cut("the sandbox hung up");
    return false;
  }
  if (connection_.out().size() >= kMaxWaiting) {
    return true;
  }
  const size_t allowed = std::min(connection_.Allowance(), kPiece);
  if (allowed == 0) {
    return true;
  }
  std::array<char, kPiece> buffer;
  const Io io = upstream_->Read(buffer.data(), allowed);
  if (io.kind == Io::Kind::kBlocked) {
    return true;
  }
  if (io.kind != Io::Kind::kBytes) {
    return OnUpstreamEnd(io.kind == Io::Kind::kEnd);
  }
  connection_.Carried(io.bytes);
  reply_in_.append(buffer.data(), io.bytes);
  moved = true;
  if (!ReadReply()) {
    return false;
  }
  if (!connection_.Flush()) {
    connection_.Cut("the sandbox hung up");
    return false;
  }
  return true;
}

bool Exchange::ReadReply() {
  while (!replied_) {
    const absl::StatusOr<std::optional<size_t>> end =
        FindHeadEnd(reply_in_, searched_, connection_.house().limits().head_bytes);
    if (!end.ok()) {
      return FailMalformed("head", end.status());
    }
    searched_ = reply_in_.size();
    if (!end->has_value()) {
      return true;
    }
    const std::string head = reply_in_.substr(0, **end);
    reply_in_.erase(0, **end);
    searched_ = 0;
    if (!OnReplyHead(head)) {
      return false;
    }
  }
  return TakeReplyBody();
}

bool Exchange::OnReplyHead(std::string_view text) {
  const absl::StatusOr<ResponseHead> head = ParseResponseHead(text);
  if (!head.ok()) {
    return FailMalformed("head", head.status());
  }
  const bool upgraded = head->status == 101;
  if (upgraded && !with_upgrade_) {
    return Fail(502, "the upstream upgrades a connection that nobody asked it to");
  }
  if (upgraded && !IsWebSocket(head_, *head)) {
    return Fail(502, "the upstream upgrades the connection to something else than the websocket");
  }
  if (head->status < 200 && !upgraded) {
    return true;  // another head follows
  }
  const absl::StatusOr<Framing> framing = FramingOf(*head, head_.method);
  if (!framing.ok()) {
    return FailMalformed("head", framing.status());
  }
  const bool compressed =
      std::any_of(head->headers.begin(), head->headers.end(), [](const Header& header) {
        return EqualsIgnoreCase(header.name, "Content-Encoding") &&
               !EqualsIgnoreCase(header.value, "identity");
      });
  if (secret_ != nullptr && compressed) {
    return Fail(502, "the reply is compressed, so that the credential could not be masked in it");
  }
  if (service_ != nullptr && service_->max_reply_bytes != 0 &&
      framing->kind == Framing::Kind::kLength && framing->length > service_->max_reply_bytes) {
    return Fail(502, "the reply is longer than max_reply allows");
  }
  status_ = head->status;
  replied_ = true;
  upgraded_ = upgraded;
  keep_upstream_ = !upgraded && head->minor >= 1 && framing->kind != Framing::Kind::kUntilClose &&
                   !ListHolds(head->headers, "Connection", "close");
  reply_ = std::make_unique<BodyReader>(*framing);
  chunked_ =
      !upgraded && head_.minor >= 1 &&
      (framing->kind == Framing::Kind::kChunked || framing->kind == Framing::Kind::kUntilClose);
  std::string out =
      SandboxHead(*head, *masker_, url_, service_ == nullptr ? "" : service_->name, upgraded);
  const Header* const length = FindHeader(head->headers, "Content-Length");
  if (chunked_) {
    out += "Transfer-Encoding: chunked\r\n";
  } else if (length != nullptr && head->status != 204 && !upgraded) {
    // Also of a HEAD, whose reply has a length and no body.
    out += fmt::format("Content-Length: {}\r\n", Printable(length->value, 20));
  }
  if (upgraded) {
    out += "Connection: Upgrade\r\n";
  } else if (head_.minor == 0 || ListHolds(head_.headers, "Connection", "close")) {
    out += "Connection: close\r\n";
  }
  connection_.out() += out + "\r\n";
  return true;
}

bool Exchange::TakeReplyBody() {
  if (upgraded_) {
    bytes_down_ += reply_in_.size();
    std::string_view rest = reply_in_;
    while (!rest.empty()) {
      // No secret goes on over the head of the next frame.
      bool ended = false;
      const size_t taken = frames_.Take(rest, ended);
      masker_->Feed(rest.substr(0, taken), connection_.out());
      if (ended) {
        masker_->Finish(connection_.out());
      }
      rest.remove_prefix(taken);
    }
    reply_in_.clear();
    ArmPause();
    return true;
  }
  std::string plain;
  while (!reply_->done() && !reply_in_.empty()) {
    const absl::StatusOr<size_t> taken = reply_->Take(reply_in_, plain, SIZE_MAX);
    if (!taken.ok()) {
      return FailMalformed("body", taken.status());
    }
    reply_in_.erase(0, *taken);
  }
  bytes_down_ += plain.size();
  if (service_ != nullptr && service_->max_reply_bytes != 0 &&
      reply_->bytes() > service_->max_reply_bytes) {
    return Fail(502, "the reply is longer than max_reply allows");
  }
  std::string masked;
  masker_->Feed(plain, masked);
  if (reply_->done()) {
    masker_->Finish(masked);
  }
  if (chunked_) {
    AppendChunk(masked, connection_.out());
  } else {
    connection_.out() += masked;
  }
  if (reply_->done()) {
    return OnReplyDone();
  }
  ArmPause();
  return true;
}

void Exchange::ArmPause() {
  EventLoop& loop = connection_.house().loop;
  loop.Cancel(std::exchange(pause_, 0));
  if (masker_->CanRelease()) {
    pause_ = loop.After(kPause, [this] { OnPause(); });
  }
}

void Exchange::OnPause() {
  pause_ = 0;
  if (connection_.carrier_.get() != this) {
    return;  // it has ended, and is about to go
  }
  std::string held;
  masker_->Release(held);
  if (chunked_) {
    AppendChunk(held, connection_.out());
  } else {
    connection_.out() += held;
  }
  connection_.Step();
}

bool Exchange::OnReplyDone() {
  if (chunked_) {
    connection_.out() += "0\r\n\r\n";
  }
  const bool sent = body_ended_ && up_.empty() && !up_broken_;
  // Bytes after the reply belong to no request.
  if (keep_upstream_ && sent && reply_in_.empty()) {
    connection_.kept() = {.key = key_, .stream = std::move(upstream_)};
  }
  const bool keep = sent && head_.minor >= 1 && !ListHolds(head_.headers, "Connection", "close");
  connection_.Finish(status_, keep);
  return false;
}

bool Exchange::OnUpstreamEnd(bool clean) {
  if (!replied_) {
    return Fail(502, "the upstream hung up without a reply");
  }
  std::string rest;
  if (upgraded_) {
    masker_->Finish(connection_.out());
    connection_.Finish(status_, false);
    return false;
  }
  if (!clean || !reply_->End().ok()) {
    return Fail(502, "the upstream hung up in the middle of its reply");
  }
  masker_->Finish(rest);
  if (chunked_) {
    AppendChunk(rest, connection_.out());
  } else {
    connection_.out() += rest;
  }
  return OnReplyDone();
}

Verdict Exchange::Again(const Rules& rules, const Asker& asker) const {
  if (secret_ != nullptr && connection_.house().credentials.IsRevoked(service_->name)) {
    Verdict revoked;
    revoked.rule = fmt::format("service {}", service_->name);
    revoked.reason = "its credential was revoked";
    return revoked;
  }
  Verdict verdict =
      service_ != nullptr ? rules.Service(asker, to_, head_) : rules.PlainHttp(asker, to_, head_);
  // It was let through to one place, with one credential, and must not outlive that.
  if (verdict.allowed && (service_ != nullptr ? !IsSamePlace(*service_, *verdict.service)
                                              : host_->addresses != verdict.host->addresses)) {
    verdict.allowed = false;
    verdict.reason = "the rule was changed";
  }
  return verdict;
}

}  // namespace creel::egress
