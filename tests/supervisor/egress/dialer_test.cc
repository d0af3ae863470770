#include "supervisor/egress/dialer.h"

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <string>

#include "tests/supervisor/egress/peers.h"

namespace creel::egress {
namespace {

using testing::Peer;
using testing::Upstream;

TEST_SUITE("Dialer") {
  TEST_CASE("a dial goes on when the dialer that began it is gone") {
    Upstream upstream([](Peer& peer) {
      peer.Hear("\x16");
      peer.Say("this is no TLS\n");
    });
    auto loop = EventLoop::Start("dialer");
    REQUIRE(loop.ok());
    auto resolver = Resolver::Start(**loop, {});
    REQUIRE(resolver.ok());
    auto tls = std::make_unique<TlsClient>();
    std::mutex mu;
    std::condition_variable changed;
    std::string message;
    std::shared_ptr<void> dial;
    alignas(Dialer) std::array<std::byte, sizeof(Dialer)> place{};
    (*loop)->Run([&] {
      auto* const dialer = new (place.data()) Dialer(**loop, **resolver, *tls);
      dial =
          dialer->Dial({.host = "127.0.0.1", .port = upstream.port(), .tls = true, .trusted = true},
                       After(std::chrono::seconds(20)),
                       [&](const absl::StatusOr<std::unique_ptr<Stream>>& stream) {
                         const std::lock_guard lock(mu);
                         message = stream.ok() ? "done" : std::string(stream.status().message());
                         changed.notify_all();
                       });
      // As a reload does, and so that nobody can take the place for a dialer.
      dialer->~Dialer();
      place.fill(std::byte{0});
    });
    {
      std::unique_lock lock(mu);
      CHECK(changed.wait_for(lock, std::chrono::seconds(20), [&] { return !message.empty(); }));
      CAPTURE(message);
      CHECK(message.find("and TLS") != std::string::npos);
    }
    (*loop)->Run([&] {
      dial.reset();
      resolver->reset();
      tls.reset();
    });
  }
}

}  // namespace
}  // namespace creel::egress
