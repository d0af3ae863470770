#include <doctest/doctest.h>
#include <fmt/format.h>

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
using testing::Echo;
using testing::Get;
using testing::Hello;
using testing::Holds;
using testing::House;
using testing::kId;
using testing::Peer;
using testing::ServerName;
using testing::Upstream;
using testing::WithHost;
using testing::WithService;

TEST_SUITE("ProxyChange") {
  TEST_CASE("who waits for a credential is told that its service went, who hung up is not") {
    Upstream upstream(Echo);
    const EgressConfig config = WithService(
        upstream.port(), {.kind = EgressCredential::Kind::kBearer,
                          .name = {},
                          .user = {},
                          .file = {},
                          .env = {},
                          .command = {"/bin/sh", "-c", "sleep 3; echo s3cr3t-key-value"}});
    House house(config);
    static constexpr size_t kGone = 8;
    {
      std::vector<Peer> gone;
      for (size_t i = 0; i < kGone; ++i) {
        gone.push_back(house.Connect());
        gone.back().Say(Get("/"));
      }
      house.Decided(kGone);
    }
    house.Ended(kGone);
    Peer waits = house.Connect();
    waits.Say(Get("/"));
    house.Decided(kGone + 1);
    EgressConfig without = config;
    without.resolvers = {house.dns.address()};
    without.services.clear();
    CHECK(house.proxy->Reload(without).ok());
    CHECK(waits.Hear("").starts_with("HTTP/1.1 503"));
    CHECK(house.Count(Record::Phase::kEnded) == kGone + 1);
    CHECK(upstream.connections() == 0);
  }

  TEST_CASE("a level that falls, a reload and a cut each end a tunnel at once") {
    Upstream upstream([](Peer& peer) { peer.Hear(""); });
    House house(WithHost(upstream.port()));
    house.dns.Set("a.example", {.addresses = {"127.0.0.1"}});
    const std::string to = fmt::format("a.example:{}", upstream.port());
    const auto open = [&] {
      Peer peer = house.Connect();
      peer.Say(ConnectTo(to));
      CHECK(peer.Take("\r\n\r\n").starts_with("HTTP/1.1 200"));
      peer.Say(Hello(ServerName("a.example")));
      return peer;
    };
    {
      Peer peer = open();
      house.proxy->Recheck(kId);
      peer.Hear("x", std::chrono::milliseconds(200));
      CHECK_FALSE(peer.ended());
      house.SetAsker({.sandbox = kId, .session = "agent:main:x", .level = "stranger"});
      house.proxy->Recheck(kId);
      peer.Hear("");
      CHECK(peer.ended());
      CHECK(Holds(house.Ended(1).reason, "level 'stranger'"));
      house.SetAsker({.sandbox = kId, .session = "agent:main:x", .level = "friend"});
    }
    {
      Peer peer = open();
      EgressConfig other = house.config;
      other.hosts[0].ports = {1};
      CHECK(house.proxy->Reload(other).ok());
      peer.Hear("");
      CHECK(peer.ended());
      CHECK(house.proxy->Reload(house.config).ok());
    }
    for (const std::string sandbox : {kId, ""}) {
      Peer peer = open();
      house.proxy->Cut(sandbox, "incident 7");
      peer.Hear("");
      CHECK(peer.ended());
      Peer refused = house.Connect();
      refused.Say(ConnectTo(to));
      CHECK(Holds(refused.Hear(""), "X-Creel-Reason: cut: incident 7"));
      house.proxy->Restore(sandbox);
    }
    Peer again = open();
    house.SetAsker(
        {.sandbox = kId, .session = "agent:main:x", .level = "friend", .read_only = true});
    house.proxy->Recheck("");
    again.Hear("");
    CHECK(again.ended());
  }
}

}  // namespace
}  // namespace creel::egress
