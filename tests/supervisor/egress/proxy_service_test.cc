#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "supervisor/egress/http_body.h"
#include "supervisor/egress/proxy.h"
#include "tests/supervisor/egress/peers.h"
#include "tests/supervisor/egress/proxy_house.h"

namespace creel::egress {
namespace {

using testing::Echo;
using testing::Frame;
using testing::Get;
using testing::Holds;
using testing::House;
using testing::kSwitch;
using testing::kSwitched;
using testing::Peer;
using testing::TestKey;
using testing::Upstream;
using testing::WithService;

TEST_SUITE("ProxyService") {
  TEST_CASE("a service is reached with its credential, and its echo is masked") {
    Upstream upstream(Echo);
    setenv("CREEL_TEST_KEY", "s3cr3t-key-value", 1);
    House house(WithService(upstream.port(), {.kind = EgressCredential::Kind::kBearer,
                                              .name = {},
                                              .user = {},
                                              .file = {},
                                              .env = "CREEL_TEST_KEY",
                                              .command = {}}));
    Peer peer = house.Connect();
    // Two requests on one connection, to one upstream connection.
    for (int i = 0; i < 2; ++i) {
      peer.Say(Get("/items?x=1"));
      const std::string reply = peer.Take("***\r\n\r\n");
      CAPTURE(reply);
    }
    peer.Say(Get("/items?x=1", "Authorization: Bearer mine\r\nConnection: close\r\n"));
    const std::string reply = peer.Hear("");
    CHECK(Holds(reply, "GET /v1/items?x=1 HTTP/1.1"));
    CHECK(Holds(reply, "Authorization: Bearer ****************"));
    CHECK_FALSE(Holds(reply, "s3cr3t-key-value"));
    CHECK_FALSE(Holds(reply, "mine"));
    CHECK(upstream.connections() == 1);
    const Record record = house.Ended(3);
    CHECK(record.rule == "service api");
    CHECK(record.path == "/items?***");
    CHECK(record.status == 200);
    CHECK(record.bytes_down > 0);
  }

  TEST_CASE("bodies of both framings go up, in pieces, and stop at the rule's limit") {
    Upstream upstream([](Peer& peer) {
      const std::string all = peer.Hear("END");
      peer.Say(fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", all.size(), all));
    });
    EgressConfig config = WithService(upstream.port());
    config.services[0].allow[0].max_body_bytes = 20;
    House house(config);
    Peer chunked = house.Connect();
    chunked.Say(
        "POST http://api.creel/x HTTP/1.1\r\nHost: api.creel\r\nTransfer-Encoding: chunked\r\n"
        "Connection: close\r\nExpect: 100-continue\r\n\r\n");
    CHECK(chunked.Take("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
    chunked.Say("5\r\nhel");
    chunked.Say("lo\r\n3\r\nEND\r\n0\r\nX: y\r\n\r\n");
    // In one chunk or two.
    std::string heard = chunked.Hear("");
    std::erase_if(heard, [](char c) { return c == '\r' || c == '\n' || (c >= '0' && c <= '9'); });
    CHECK(Holds(heard, "hello"));
    Peer large = house.Connect();
    large.Say(
        "POST http://api.creel/x HTTP/1.1\r\nHost: api.creel\r\nTransfer-Encoding: chunked\r\n\r\n"
        "40\r\n" +
        std::string(64, 'x') + "\r\n0\r\n\r\n");
    CHECK(large.Hear("").starts_with("HTTP/1.1 413"));
    Peer said = house.Connect();
    said.Say("POST http://api.creel/x HTTP/1.1\r\nHost: api.creel\r\nContent-Length: 21\r\n\r\n");
    CHECK(said.Hear("").starts_with("HTTP/1.1 403"));
  }

  TEST_CASE("a reply streams as it comes, and a secret cut over its chunks is masked") {
    Upstream upstream([](Peer& peer) {
      peer.Hear("\r\n\r\n");
      peer.Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nfirst\n\n\r\n");
      // Goes on only when the first was seen to have arrived: by the test's second connection.
      peer.Say("5\r\ns3cr3\r\n");
      usleep(20'000);
      peer.Say("b\r\nt-key-value\r\n0\r\n\r\n");
    });
    House house(WithService(upstream.port(), TestKey()));
    Peer peer = house.Connect();
    peer.Say(Get("/stream"));
    CHECK(Holds(peer.Hear("first\n\n"), "first\n\n"));
    const std::string all = peer.Hear("0\r\n\r\n");
    CHECK_FALSE(Holds(all, "s3cr3"));
    CHECK_FALSE(Holds(all, "t-key"));
    CHECK(Holds(all, "****************"));
  }

  TEST_CASE("a reply that is masked is as long as it says, in each framing") {
    const std::string body = "a s3cr3t-key-value b czNjcjN0LWtleS12YWx1ZQ== c s3cr3t";
    for (const std::string& framing :
         {fmt::format("Content-Length: {}\r\n\r\n{}", body.size(), body),
          fmt::format("Transfer-Encoding: chunked\r\n\r\n7\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                      body.substr(0, 7), body.size() - 7, body.substr(7)),
          "\r\n" + body}) {
      CAPTURE(framing);
      Upstream upstream([&framing](Peer& peer) {
        while (Holds(peer.Take("\r\n\r\n"), "GET")) {
          peer.Say("HTTP/1.1 200 OK\r\n" + framing);
          if (framing.starts_with("\r\n")) {
            peer.EndWrites();
          }
        }
      });
      House house(WithService(upstream.port(), TestKey()));
      Peer peer = house.Connect();
      // The second finds its reply's beginning where the first's ends.
      for (int i = 0; i < 2; ++i) {
        peer.Say(Get("/"));
        const bool chunked = !framing.starts_with("Content-Length");
        std::string reply = peer.Take(chunked ? "0\r\n\r\n" : "c s3cr3t");
        CHECK(reply.starts_with("HTTP/1.1 200"));
        CHECK_FALSE(Holds(reply, "s3cr3t-"));
        CHECK_FALSE(Holds(reply, "czNjcjN0"));
        const size_t head = reply.find("\r\n\r\n") + 4;
        if (!chunked) {
          CHECK(Holds(reply, fmt::format("Content-Length: {}\r\n", body.size())));
          CHECK(reply.size() - head == body.size());
          continue;
        }
        CHECK(Holds(reply, "Transfer-Encoding: chunked\r\n"));
        CHECK_FALSE(Holds(reply, "Content-Length"));
        std::string plain;
        BodyReader reader({.kind = Framing::Kind::kChunked});
        const auto taken = reader.Take(reply.substr(head), plain, SIZE_MAX);
        REQUIRE(taken.ok());
        CHECK(reader.done());
        CHECK(*taken == reply.size() - head);
        CHECK(plain.size() == body.size());
        CHECK(plain.ends_with(" c s3cr3t"));
      }
    }
  }

  TEST_CASE("a reply that could not be masked, or is malformed, is not passed on") {
    const char* const kReplies[] = {
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n"
        "Content-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "",
    };
    for (const char* text : kReplies) {
      CAPTURE(text);
      Upstream upstream([text](Peer& peer) {
        peer.Hear("\r\n\r\n");
        peer.Say(text);
      });
      House house(WithService(upstream.port(), TestKey()));
      Peer peer = house.Connect();
      peer.Say(Get("/"));
      CHECK(peer.Hear("").starts_with("HTTP/1.1 502"));
    }
  }

  TEST_CASE("what is malformed in a service's reply is not quoted") {
    static constexpr char kSecret[] = "s3cr3t-key-value";
    const std::string start = "HTTP/1.1 200 OK\r\n";
    const std::string key = kSecret;
    for (const std::string& text : {start + key + "\r\n\r\n", start + "X_" + key + ": 1\r\n\r\n",
                                    start + "Transfer-Encoding: " + key + "\r\n\r\n",
                                    start + "Content-Length: " + key + "\r\n\r\n",
                                    start + "Transfer-Encoding: chunked\r\n\r\n" + key + "\r\n"}) {
      CAPTURE(text);
      Upstream upstream([&text](Peer& peer) {
        peer.Hear("\r\n\r\n");
        peer.Say(text);
      });
      House house(WithService(upstream.port(), TestKey()));
      Peer peer = house.Connect();
      peer.Say(Get("/"));
      const std::string reply = peer.Hear("");
      CHECK_FALSE(Holds(reply, kSecret));
      CHECK(peer.ended());
      const Record record = house.Ended(1);
      CHECK(Holds(record.reason, "is malformed"));
      CHECK_FALSE(Holds(record.reason, kSecret));
    }
  }

  TEST_CASE("a credential that cannot be had is told without its source, and nothing is sent") {
    Upstream upstream(Echo);
    House house(WithService(upstream.port(), {.kind = EgressCredential::Kind::kBearer,
                                              .name = {},
                                              .user = {},
                                              .file = "/does/not/exist/key",
                                              .env = {},
                                              .command = {}}));
    Peer peer = house.Connect();
    peer.Say(Get("/"));
    const std::string reply = peer.Hear("");
    CHECK(reply.starts_with("HTTP/1.1 503"));
    CHECK_FALSE(Holds(reply, "/does/not"));
    CHECK(upstream.connections() == 0);
  }

  TEST_CASE("a websocket goes both ways, masked on the way back, each frame at once") {
    Upstream upstream([](Peer& peer) {
      const std::string head = peer.Take("\r\n\r\n");
      if (!Holds(head, "Upgrade: websocket") || Holds(head, "Extensions")) {
        return;
      }
      peer.Say(kSwitched);
      // Ends as the credential begins.
      CHECK(Holds(peer.Take("ping"), "ping"));
      peer.Say(Frame("hello s3cr3t"));
      CHECK(Holds(peer.Take("pong"), "pong"));
      peer.Say(Frame("echo s3cr3t-key-value") + Frame("s3cr3t-key"));
      CHECK(Holds(peer.Take("more"), "more"));
      // Pauses within a frame, in the middle of the credential.
      const std::string last = Frame("a s3cr3t-key-value");
      peer.Say(last.substr(0, 6));
      CHECK(Holds(peer.Take("rest"), "rest"));
      peer.Say(last.substr(6));
      peer.Hear("");
    });
    House house(WithService(upstream.port(), TestKey()));
    Peer peer = house.Connect();
    peer.Say(Get("/ws", kSwitch + "Sec-WebSocket-Extensions: permessage-deflate\r\n"));
    CHECK(Holds(peer.Take("\r\n\r\n"), "101"));
    peer.Say("ping");
    CHECK(peer.Take("s3cr3t") == Frame("hello s3cr3t"));
    peer.Say("pong");
    CHECK(peer.Take("s3cr3t-key") == Frame("echo ****************") + Frame("s3cr3t-key"));
    peer.Say("more");
    CHECK(peer.Take("a s3") == Frame("a s3cr3t-key-value").substr(0, 6));
    peer.Say("rest");
    CHECK(peer.Take("**************") == "**************");
  }

  TEST_CASE("only the websocket that was asked for is one") {
    const std::string start = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
    const std::string accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for (const std::string& text :
         {start + "Upgrade: websocket\r\n\r\n", start + "Upgrade: h2c\r\n" + accept + "\r\n",
          start + accept + "\r\n",
          start + "Upgrade: websocket\r\nUpgrade: h2c\r\n" + accept + "\r\n",
          start +
              "Upgrade: websocket\r\nSec-WebSocket-Accept: c3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"}) {
      CAPTURE(text);
      Upstream upstream([&text](Peer& peer) {
        peer.Hear("\r\n\r\n");
        peer.Say(text);
      });
      House house(WithService(upstream.port(), TestKey()));
      Peer peer = house.Connect();
      peer.Say(Get("/ws", kSwitch));
      CHECK(peer.Hear("").starts_with("HTTP/1.1 502"));
    }
  }

  TEST_CASE("a reply that pauses is not short of its last bytes") {
    for (const bool chunked : {true, false}) {
      CAPTURE(chunked);
      Upstream upstream([chunked](Peer& peer) {
        peer.Hear("\r\n\r\n");
        peer.Say(chunked ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nfirst s\r\n"
                         : "HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\nfirst s");
        peer.Hear("");
      });
      House house(WithService(upstream.port(), TestKey()));
      Peer peer = house.Connect();
      peer.Say(Get("/stream"));
      const std::string end = chunked ? "1\r\ns\r\n" : "first s";
      CHECK(peer.Hear(end).ends_with(end));
      CHECK_FALSE(peer.ended());
    }
  }

  TEST_CASE("a large body both ways keeps the proxy's memory bounded") {
    static constexpr size_t kBytes = 64u << 20;
    Upstream upstream([](Peer& peer) {
      // Says it all before it listens.
      peer.Hear("\r\n\r\n");
      peer.Say(fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", kBytes));
      peer.Say(std::string(kBytes, 'd'));
    });
    House house(WithService(upstream.port()));
    Peer peer = house.Connect();
    peer.Say(Get("/", "Connection: close\r\n"));
    usleep(300'000);
    CHECK(peer.Hear("", std::chrono::seconds(60)).size() > kBytes);
    CHECK(house.Ended(1).bytes_down == kBytes);
  }
}

}  // namespace
}  // namespace creel::egress
