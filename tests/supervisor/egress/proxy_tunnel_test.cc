#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <vector>

#include "supervisor/egress/proxy.h"
#include "tests/supervisor/egress/hello_builder.h"
#include "tests/supervisor/egress/peers.h"
#include "tests/supervisor/egress/proxy_house.h"

namespace creel::egress {
namespace {

using testing::ConnectTo;
using testing::Hello;
using testing::Holds;
using testing::House;
using testing::Peer;
using testing::ServerName;
using testing::Upstream;
using testing::WithHost;

TEST_SUITE("ProxyTunnel") {
  TEST_CASE("a tunnel carries TLS for its own name, and nothing else") {
    Upstream upstream([](Peer& peer) {
      peer.Hear("what follows");
      peer.Say("from the upstream");
      peer.Hear("", std::chrono::seconds(1));
    });
    House house(WithHost(upstream.port()));
    house.dns.Set("a.example", {.addresses = {"127.0.0.1"}});
    const std::string to = fmt::format("a.example:{}", upstream.port());
    const std::string hello = Hello(ServerName("a.example"));
    {
      Peer peer = house.Connect();
      peer.Say(ConnectTo(to));
      CHECK(peer.Take("\r\n\r\n").starts_with("HTTP/1.1 200"));
      // In pieces.
      for (const char c : hello) {
        peer.Say(std::string(1, c));
      }
      peer.Say("what follows");
      CHECK(Holds(peer.Hear("upstream"), "from the upstream"));
    }
    CHECK(house.Ended(1).bytes_up == hello.size() + 12);
    size_t ended = 1;
    for (const std::string& first :
         {Hello(ServerName("b.example")), Hello(""), std::string("GET / HTTP/1.1\r\n\r\n"),
          std::string("SSH-2.0-x\r\n"), Hello(ServerName("a.example.evil.example"))}) {
      Peer peer = house.Connect();
      peer.Say(ConnectTo(to));
      CHECK(peer.Take("\r\n\r\n").starts_with("HTTP/1.1 200"));
      peer.Say(first + "what follows");
      CHECK_FALSE(Holds(peer.Hear(""), "from the upstream"));
      const Record record = house.Ended(++ended);
      CHECK(record.bytes_up == 0);
      CHECK(Holds(record.reason, "cut: tls: "));
    }
  }

  TEST_CASE("SOCKS takes names, not addresses, to the same rules") {
    Upstream upstream([](Peer& peer) {
      peer.Hear("follows");
      peer.Say("from the upstream");
    });
    House house(WithHost(upstream.port()));
    house.dns.Set("a.example", {.addresses = {"127.0.0.1"}});
    const auto request = [&](const std::string& name) {
      return std::string("\x05\x01\x00\x03", 4) + static_cast<char>(name.size()) + name +
             testing::Number(upstream.port(), 2);
    };
    Peer peer = house.Connect();
    peer.Say(std::string("\x05\x01\x00", 3));
    CHECK(peer.Take(std::string("\x05\x00", 2)).size() == 2);
    peer.Say(request("a.example"));
    CHECK(peer.Take(std::string(4, '\0'))[1] == 0);
    peer.Say(Hello(ServerName("a.example")) + "follows");
    CHECK(Holds(peer.Hear("upstream"), "from the upstream"));

    for (const std::string& bad :
         {request("b.example"), request("127.0.0.1"),
          std::string("\x05\x01\x00\x01\x7f\x00\x00\x01", 8) + testing::Number(upstream.port(), 2),
          std::string("\x05\x02\x00\x03\x01", 5) + "a" + testing::Number(80, 2)}) {
      Peer other = house.Connect();
      other.Say(std::string("\x05\x01\x00", 3) + bad);
      const std::string reply = other.Hear("");
      REQUIRE(reply.size() >= 4);
      CHECK(reply[3] == 2);
    }
    Peer password = house.Connect();
    password.Say(std::string("\x05\x01\x02", 3));
    CHECK(password.Hear("") == "\x05\xff");
  }

  TEST_CASE("a name that leads to a private address is refused, also among good ones") {
    House house([] {
      EgressConfig config = WithHost(443);
      config.hosts[0].addresses.clear();
      return config;
    }());
    for (const std::vector<std::string>& addresses : std::vector<std::vector<std::string>>{
             {"127.0.0.1"}, {"169.254.169.254"}, {"10.0.0.1"}, {"203.0.113.1", "192.168.0.1"}}) {
      house.dns.Set("a.example", {.addresses = addresses, .ttl = 0});
      Peer peer = house.Connect();
      peer.Say(ConnectTo("a.example:443"));
      const std::string reply = peer.Hear("");
      CHECK(reply.starts_with("HTTP/1.1 403"));
      CHECK(Holds(reply, "X-Creel-Reason: address: "));
    }
    house.dns.Set("a.example", {.addresses = {"10.0.0.1"}, .ttl = 0, .alias = "db.internal"});
    Peer peer = house.Connect();
    peer.Say(ConnectTo("a.example:443"));
    CHECK(peer.Hear("").starts_with("HTTP/1.1 403"));
    // A name that no rule covers is not even asked for.
    Peer data = house.Connect();
    data.Say(ConnectTo("data.a.example:443"));
    CHECK(data.Hear("").starts_with("HTTP/1.1 403"));
    CHECK(house.dns.asked("data.a.example") == 0);
  }

  TEST_CASE("a SOCKS greeting is answered while the client waits for that") {
    House house(WithHost(443));
    for (int round = 0; round < 20; ++round) {
      Peer peer = house.Connect();
      usleep(2'000 * (round % 3));  // before, with and after the connection is taken up
      const auto began = std::chrono::steady_clock::now();
      peer.Say(std::string("\x05\x01\x00", 3));
      CHECK(peer.Take(std::string("\x05\x00", 2)).size() == 2);
      CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(5));
    }
  }
}

}  // namespace
}  // namespace creel::egress
