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
using testing::kSwitch;
using testing::kSwitched;
using testing::Peer;
using testing::ServerName;
using testing::TestKey;
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

  TEST_CASE("a reload that leads elsewhere, or with another credential, ends what is under way") {
    Upstream upstream([](Peer& peer) {
      const std::string head = peer.Take("\r\n\r\n");
      peer.Say(Holds(head, "Upgrade") ? kSwitched
                                      : "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      peer.Hear("");
    });
    struct Row {
      const char* what;
      void (*change)(EgressService& service);
      bool cut;
    };
    const Row kRows[] = {
        {"url", [](EgressService& service) { service.url += "/elsewhere"; }, true},
        {"ca", [](EgressService& service) { service.ca = "/etc/ca.pem"; }, true},
        {"source", [](EgressService& service) { service.credential.env = "CREEL_TEST_KEY_2"; },
         true},
        {"place", [](EgressService& service) { service.credential.name = "X-Other"; }, true},
        {"none", [](EgressService& service) { service.credential = {}; }, true},
        {"refresh",
         [](EgressService& service) { service.credential.refresh = std::chrono::seconds(7); },
         false},
        {"max_reply", [](EgressService& service) { service.max_reply_bytes = 1000; }, false},
    };
    for (const Row& row : kRows) {
      for (const bool websocket : {true, false}) {
        CAPTURE(row.what);
        CAPTURE(websocket);
        House house(WithService(upstream.port(), TestKey()));
        Peer peer = house.Connect();
        peer.Say(Get("/stream", websocket ? kSwitch : ""));
        CHECK(Holds(peer.Take("\r\n\r\n"), websocket ? "101" : "200"));
        EgressConfig other = house.config;
        row.change(other.services[0]);
        CHECK(house.proxy->Reload(other).ok());
        peer.Hear("", row.cut ? std::chrono::seconds(20) : std::chrono::milliseconds(200));
        CHECK(peer.ended() == row.cut);
        if (row.cut) {
          CHECK(house.Ended(1).reason == "cut: service api: the rule was changed");
        }
      }
    }
  }

  TEST_CASE("a request that waits for its credential does not take the new one to the old place") {
    Upstream before(Echo);
    Upstream after(Echo);
    EgressConfig config = WithService(before.port(), TestKey());
    config.services[0].credential.env.clear();
    config.services[0].credential.command = {"/bin/sh", "-c", "sleep 1; echo old-key-value"};
    House house(config);
    Peer peer = house.Connect();
    peer.Say(Get("/"));
    house.Decided(1);
    EgressConfig other = WithService(after.port(), TestKey());
    other.resolvers = house.config.resolvers;
    CHECK(house.proxy->Reload(other).ok());
    CHECK(peer.Hear("").empty());
    CHECK(house.Ended(1).reason == "cut: service api: the rule was changed");
    Peer again = house.Connect();
    again.Say(Get("/", "Connection: close\r\n"));
    CHECK(again.Hear("").starts_with("HTTP/1.1 200"));
    CHECK(before.connections() == 0);
    CHECK(after.connections() == 1);
  }

  TEST_CASE("a credential that is revoked ends what goes on with it, with a reason") {
    Upstream upstream([](Peer& peer) {
      const std::string head = peer.Take("\r\n\r\n");
      peer.Say(Holds(head, "Upgrade") ? kSwitched
                                      : "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      peer.Hear("");
    });
    for (const bool websocket : {true, false}) {
      CAPTURE(websocket);
      House house(WithService(upstream.port(), TestKey()));
      Peer peer = house.Connect();
      peer.Say(Get("/stream", websocket ? kSwitch : ""));
      CHECK(Holds(peer.Take("\r\n\r\n"), websocket ? "101" : "200"));
      CHECK(house.proxy->credentials().Revoke("api").ok());
      house.proxy->Recheck("");
      peer.Hear("");
      CHECK(peer.ended());
      CHECK(house.Ended(1).reason == "cut: service api: its credential was revoked");
    }
  }

  TEST_CASE("a tunnel does not outlive the concession that let it through") {
    Upstream upstream([](Peer& peer) {
      peer.Take("follows");
      peer.Say("from the upstream");
      peer.Hear("");
    });
    struct Row {
      std::string first;
      bool cut;
    };
    for (const Row& row : {Row{Hello("") + "follows", true},
                           Row{Hello(ServerName("a.example")) + "follows", false}, Row{"", true}}) {
      CAPTURE(row.first);
      EgressConfig config = WithHost(upstream.port());
      config.hosts[0].no_sni = true;
      House house(config);
      house.dns.Set("a.example", {.addresses = {"127.0.0.1"}});
      Peer peer = house.Connect();
      peer.Say(ConnectTo(fmt::format("a.example:{}", upstream.port())));
      CHECK(peer.Take("\r\n\r\n").starts_with("HTTP/1.1 200"));
      if (!row.first.empty()) {
        peer.Say(row.first);
        CHECK(Holds(peer.Take("upstream"), "from the upstream"));
      }
      EgressConfig other = house.config;
      other.hosts[0].no_sni = false;
      CHECK(house.proxy->Reload(other).ok());
      peer.Hear("", row.cut ? std::chrono::seconds(20) : std::chrono::milliseconds(200));
      CHECK(peer.ended() == row.cut);
      if (row.cut) {
        CHECK(house.Ended(1).reason == "cut: host a.example: the rule was changed");
      }
    }
  }

  TEST_CASE("a request does not outlive the network that let it through") {
    Upstream upstream([](Peer& peer) {
      peer.Take("\r\n\r\n");
      peer.Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      peer.Hear("");
    });
    EgressConfig config = WithHost(upstream.port());
    config.hosts[0].plain_http = true;
    House house(config);
    house.dns.Set("a.example", {.addresses = {"127.0.0.1"}});
    Peer peer = house.Connect();
    peer.Say(fmt::format("GET http://a.example:{0}/ HTTP/1.1\r\nHost: a.example:{0}\r\n\r\n",
                         upstream.port()));
    CHECK(peer.Take("\r\n\r\n").starts_with("HTTP/1.1 200"));
    EgressConfig other = house.config;
    other.hosts[0].addresses.clear();
    CHECK(house.proxy->Reload(other).ok());
    peer.Hear("");
    CHECK(peer.ended());
    CHECK(house.Ended(1).reason == "cut: host a.example: the rule was changed");
  }
}

}  // namespace
}  // namespace creel::egress
