#include "supervisor/egress/tunnel.h"

#include <fmt/format.h>

#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/egress/client_hello.h"

namespace creel::egress {
namespace {

constexpr size_t kHelloPiece = 16u << 10;
constexpr size_t kMaxHelloBytes = 128u << 10;
// A fatal alert, unrecognized_name (RFC 6066): what a TLS client understands of a refusal.
constexpr std::string_view kAlert("\x15\x03\x03\x00\x02\x02\x70", 7);
constexpr std::string_view kEstablished = "HTTP/1.1 200 Connection established\r\n\r\n";
constexpr std::string_view kSocksEstablished("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", 10);

}  // namespace

void RefuseDial(Connection& connection, const absl::Status& error) {
  const std::string reason(error.message());
  if (absl::IsPermissionDenied(error)) {
    connection.Refuse(403, "address", reason,
                      "addresses: [NETWORK]   # in the host's rule, if that network is meant");
  } else if (absl::IsNotFound(error)) {
    connection.Refuse(502, "name", reason);
  } else if (absl::IsDeadlineExceeded(error)) {
    connection.Refuse(504, "upstream", reason);
  } else {
    connection.Refuse(502, "upstream", reason);
  }
}

Tunnel::Tunnel(Connection& connection, std::shared_ptr<const Rules> rules, const EgressHost& host,
               Authority to)
    : connection_(connection), rules_(std::move(rules)), host_(host), to_(std::move(to)) {}

Tunnel::~Tunnel() { connection_.house().loop.Cancel(timer_); }

void Tunnel::Begin() {
  House& house = connection_.house();
  Destination destination;
  destination.host = to_.host;
  destination.port = to_.port;
  destination.networks = host_.addresses;
  dial_ = house.dialer->Dial(
      std::move(destination), After(house.limits().connect_timeout),
      [this](absl::StatusOr<std::unique_ptr<Stream>> stream) { OnDialed(std::move(stream)); });
}

void Tunnel::OnDialed(absl::StatusOr<std::unique_ptr<Stream>> stream) {
  if (!stream.ok()) {
    RefuseDial(connection_, stream.status());
    return;
  }
  upstream_ = *std::move(stream);
  if (const absl::Status watched = connection_.WatchUpstream(upstream_->fd()); !watched.ok()) {
    connection_.Refuse(503, "supervisor", std::string(watched.message()));
    return;
  }
  connection_.out() += connection_.socks_ ? kSocksEstablished : kEstablished;
  phase_ = host_.no_tls ? Phase::kFirstBytes : Phase::kHello;
  House& house = connection_.house();
  if (phase_ == Phase::kHello) {
    timer_ = house.loop.After(house.limits().head_timeout, [this] {
      timer_ = 0;
      // It may have ended just now, and wait for its own end.
      if (phase_ == Phase::kHello && connection_.carrier_.get() == this) {
        RefuseHello("the ClientHello was not complete in time");
      }
    });
  }
  connection_.StepSoon();
}

void Tunnel::Step() {
  if (phase_ == Phase::kDialing) {
    return;
  }
  if (phase_ == Phase::kHello && !CheckHello()) {
    return;
  }
  if (phase_ == Phase::kFirstBytes) {
    std::string& in = connection_.in();
    while (!in.empty()) {
      const Io io = upstream_->Write(in.data(), in.size());
      if (io.kind == Io::Kind::kBlocked) {
        return;
      }
      if (io.kind != Io::Kind::kBytes) {
        connection_.Finish(200, false, "the upstream hung up");
        return;
      }
      in.erase(0, io.bytes);
      first_bytes_ += io.bytes;
      connection_.Carried(io.bytes);
    }
    up_.emplace(connection_.socket(), upstream_->fd());
    down_.emplace(upstream_->fd(), connection_.socket());
    phase_ = Phase::kCarrying;
  }
  Carry();
}

bool Tunnel::CheckHello() {
  std::string& in = connection_.in();
  for (;;) {
    const absl::StatusOr<HelloFacts> facts = ReadClientHello(in);
    if (!facts.ok()) {
      RefuseHello(std::string(facts.status().message()));
      return false;
    }
    if (facts->kind == HelloFacts::Kind::kNotTls) {
      RefuseHello("what the tunnel carries is not TLS");
      return false;
    }
    if (facts->kind == HelloFacts::Kind::kHello) {
      std::string_view name = facts->server_name;
      if (name.ends_with('.')) {
        name.remove_suffix(1);
      }
      if (name.empty() && !host_.no_sni) {
        RefuseHello("the ClientHello names no server");
        return false;
      }
      if (!name.empty() && name != to_.host) {
        RefuseHello(fmt::format("the ClientHello is for '{}', the tunnel for '{}'",
                                Printable(name, 120), to_.host));
        return false;
      }
      connection_.house().loop.Cancel(std::exchange(timer_, 0));
      named_ = !name.empty();
      phase_ = Phase::kFirstBytes;
      return true;
    }
    if (in.size() >= kMaxHelloBytes) {
      RefuseHello("the ClientHello is longer than 64 KiB");
      return false;
    }
    const Io io = connection_.Read(kHelloPiece);
    if (io.kind == Io::Kind::kBlocked) {
      return false;
    }
    if (io.kind != Io::Kind::kBytes) {
      connection_.Finish(200, false, "the sandbox hung up before its ClientHello");
      return false;
    }
  }
}

void Tunnel::RefuseHello(const std::string& reason) {
  connection_.out() += kAlert;
  connection_.Finish(403, false, fmt::format("cut: {}: {}", "tls", reason));
}

void Tunnel::Carry() {
  // The reply to CONNECT goes first.
  if (!connection_.out().empty()) {
    return;
  }
  House& house = connection_.house();
  const size_t budget = connection_.Allowance();
  if (budget == 0) {
    return;
  }
  const uint64_t before = up_->bytes() + down_->bytes();
  const Flow::State up = up_->Pump(house.pipes, budget);
  const Flow::State down = down_->Pump(house.pipes, budget);
  const uint64_t carried = up_->bytes() + down_->bytes() - before;
  if (carried > 0) {
    connection_.Carried(carried);
  }
  if (up == Flow::State::kBroken || down == Flow::State::kBroken || down == Flow::State::kStuck) {
    connection_.Finish(200, false, "a side of the tunnel broke off");
    return;
  }
  // An upstream that takes nothing more may still have something to say.
  if ((up_->done() || up == Flow::State::kStuck) && down_->done()) {
    connection_.Finish(200, false);
    return;
  }
  if (up == Flow::State::kMore || down == Flow::State::kMore) {
    connection_.StepSoon();
  }
}

Verdict Tunnel::Again(const Rules& rules, const Asker& asker) const {
  Verdict verdict = rules.Tunnel(asker, to_);
  // It was let through by what this rule conceded, and must not outlive that.
  if (verdict.allowed && ((host_.no_tls && !verdict.host->no_tls) ||
                          (host_.no_sni && !verdict.host->no_sni && !named_) ||
                          host_.addresses != verdict.host->addresses)) {
    verdict.allowed = false;
    verdict.reason = "the rule was changed";
  }
  return verdict;
}

uint64_t Tunnel::bytes_up() const { return first_bytes_ + (up_ ? up_->bytes() : 0); }
uint64_t Tunnel::bytes_down() const { return down_ ? down_->bytes() : 0; }

}  // namespace creel::egress
