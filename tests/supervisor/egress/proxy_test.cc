#include "supervisor/egress/proxy.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>

#include "tests/supervisor/egress/peers.h"
#include "tests/supervisor/egress/proxy_house.h"

namespace creel::egress {
namespace {

using testing::ConnectTo;
using testing::Echo;
using testing::Get;
using testing::Holds;
using testing::House;
using testing::Peer;
using testing::Upstream;
using testing::WithHost;
using testing::WithService;

TEST_SUITE("Proxy") {
  TEST_CASE("a refusal says which rule, in the header and the body, and what would allow it") {
    Upstream upstream(Echo);
    House house(WithService(upstream.port()));
    Peer peer = house.Connect();
    peer.Say("DELETE http://api.creel/x HTTP/1.1\r\nHost: api.creel\r\n\r\n");
    const std::string reply = peer.Hear("");
    CHECK(reply.starts_with("HTTP/1.1 403 Forbidden\r\n"));
    CHECK(Holds(reply, "X-Creel-Reason: service api: "));
    CHECK(Holds(reply, "allow: [{methods: [DELETE], path: /x}]"));
    const Record record = house.Ended(1);
    CHECK_FALSE(record.allowed);
    CHECK(record.status == 403);
    CHECK(upstream.connections() == 0);
  }

  TEST_CASE("what is ambiguous, or not meant for a proxy, never reaches an upstream") {
    Upstream upstream(Echo);
    House house(WithService(upstream.port()));
    const std::string start = "POST http://api.creel/x HTTP/1.1\r\nHost: api.creel\r\n";
    for (const std::string& request : {
             start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
             start + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
             start + "X: a\r\n b\r\n\r\n",
             start + "X: a\nY: b\r\n\r\n",
             start + "Transfer-Encoding: xchunked\r\n\r\n",
             start + "X : a\r\n\r\n",
             std::string("GET / HTTP/1.1\r\nHost: api.creel\r\n\r\n"),
             std::string("GET http://api.creel/ HTTP/1.1\r\n\r\n"),
             std::string("GET http://api.creel/ HTTP/1.1\r\nHost: other.creel\r\n\r\n"),
             std::string("GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
             std::string("GET https://api.creel/ HTTP/1.1\r\nHost: api.creel\r\n\r\n"),
             std::string("CONNECT api.creel:80 HTTP/1.1\r\nHost: api.creel:80\r\n\r\n"),
             std::string("CONNECT a.example:443 HTTP/1.1\r\nHost: b.example\r\n\r\n"),
             std::string("CONNECT 127.0.0.1:80 HTTP/1.1\r\n\r\n"),
             std::string("\x16\x03\x01\x02\x00\x01\n\n"),
             std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
         }) {
      CAPTURE(request);
      Peer peer = house.Connect();
      peer.Say(request);
      const std::string reply = peer.Hear("");
      CHECK(reply.starts_with("HTTP/1.1 4"));
      CHECK(Holds(reply, "X-Creel-Reason: "));
    }
    CHECK(upstream.connections() == 0);
  }

  TEST_CASE("what cannot be written down does not go out") {
    std::atomic<int> reached{0};
    Upstream upstream([&](Peer& peer) {
      ++reached;
      Echo(peer);
    });
    House house(WithService(upstream.port()));
    house.SetRecording(absl::ResourceExhaustedError("the disk is full"));
    Peer peer = house.Connect();
    peer.Say("GET http://api.creel/v1/x HTTP/1.1\r\nHost: api.creel\r\n\r\n");
    const std::string refused = peer.Hear("");
    CHECK(refused.starts_with("HTTP/1.1 503"));
    CHECK(Holds(refused, "X-Creel-Reason: record: "));
    CHECK_FALSE(Holds(refused, "disk"));
    CHECK(reached == 0);
    const Record ended = house.Ended(1);
    CHECK_FALSE(ended.allowed);
    CHECK(ended.status == 503);

    House tunnels(WithHost(upstream.port()));
    tunnels.dns.Set("a.example", {.addresses = {"127.0.0.1"}});
    tunnels.SetRecording(absl::ResourceExhaustedError("the disk is full"));
    Peer tunnel = tunnels.Connect();
    tunnel.Say(ConnectTo(fmt::format("a.example:{}", upstream.port())));
    CHECK(tunnel.Hear("").starts_with("HTTP/1.1 503"));
    CHECK(tunnels.dns.asked("a.example") == 0);
    CHECK(reached == 0);
    // It goes on by itself.
    tunnels.SetRecording(absl::OkStatus());
    Peer again = tunnels.Connect();
    again.Say(ConnectTo(fmt::format("a.example:{}", upstream.port())));
    CHECK(again.Take("\r\n\r\n").starts_with("HTTP/1.1 200"));
  }

  TEST_CASE("refusals by the rate cannot fill the record") {
    EgressConfig config = WithHost(443);
    config.limits.requests_per_minute = 5;
    House house(config);
    for (int i = 0; i < 200; ++i) {
      Peer peer = house.Connect();
      // Half of them are no requests at all.
      peer.Say(i % 2 == 0 ? "CONNECT nowhere.example:443 HTTP/1.1\r\n\r\n" : "rubbish\r\n\r\n");
      peer.Hear("");
    }
    MutexLock lock(house.mu);
    CHECK(house.records.size() < 250);
    CHECK(std::any_of(house.records.begin(), house.records.end(),
                      [](const Record& record) { return record.rule == "rate"; }));
  }

  TEST_CASE("rates, connections and times are bounded") {
    Upstream upstream([](Peer& peer) { peer.Hear("", std::chrono::seconds(3)); });
    EgressConfig config = WithService(upstream.port());
    config.limits.requests_per_minute = 3;
    config.limits.connections = 2;
    config.limits.head_timeout = std::chrono::milliseconds(300);
    config.limits.idle_timeout = std::chrono::milliseconds(500);
    config.limits.head_bytes = 1024;
    House house(config);
    {
      Peer slow = house.Connect();
      slow.Say("GET http://api.creel/ HT");
      CHECK(slow.Hear("").starts_with("HTTP/1.1 408"));
      Peer silent = house.Connect();
      CHECK(silent.Hear("").empty());
      Peer large = house.Connect();
      large.Say("GET http://api.creel/ HTTP/1.1\r\nX: " + std::string(2000, 'x'));
      CHECK(large.Hear("").starts_with("HTTP/1.1 431"));
    }
    {
      Peer idle = house.Connect();
      idle.Say(Get("/"));
      CHECK(idle.Hear("").empty());
    }
    {
      // The third waits for one of the two to end.
      Peer one = house.Connect();
      one.Say(Get("/"));
      Peer two = house.Connect();
      two.Say(Get("/"));
      Peer three = house.Connect();
      three.Say(Get("/"));
      CHECK(Holds(three.Hear(""), "HTTP/1.1 429"));
    }
  }

  TEST_CASE("a peer that is not the container's first process is not served") {
    Upstream upstream(Echo);
    House house(WithService(upstream.port()));
    house.peer_pid = 1;
    Peer peer = house.Connect();
    peer.Say(Get("/"));
    CHECK(peer.Hear("").empty());
    house.peer_pid = getpid();
    Peer good = house.Connect();
    good.Say(Get("/", "Connection: close\r\n"));
    CHECK(good.Hear("").starts_with("HTTP/1.1 200"));
    struct stat info {};
    REQUIRE(stat((house.dir + "/egress.sock").c_str(), &info) == 0);
    CHECK((info.st_mode & 07777) == 0600);
  }

  TEST_CASE("a request can be explained without being sent, and tried as if from a sandbox") {
    Upstream upstream(Echo);
    House house(WithService(upstream.port()));
    const Asker asker{.sandbox = {}, .session = "s", .level = "friend"};
    CHECK(house.proxy->Explain(asker, "GET", "http://api.creel/x")->allowed);
    CHECK_FALSE(house.proxy->Explain(asker, "PUT", "http://api.creel/x")->allowed);
    CHECK_FALSE(house.proxy->Explain(asker, "", "https://a.example/x")->allowed);
    CHECK_FALSE(house.proxy->Explain(asker, "", "127.0.0.1:80")->allowed);
    CHECK_FALSE(house.proxy->Explain(asker, "", "http://").ok());
    CHECK(upstream.connections() == 0);
    const auto tried =
        house.proxy->Try(asker, "", "http://api.creel/x", After(std::chrono::seconds(20)));
    REQUIRE(tried.ok());
    CHECK(tried->starts_with("HTTP/1.1 200"));
    CHECK_FALSE(house.proxy->Log("operator", 10).empty());
  }
}

}  // namespace
}  // namespace creel::egress
