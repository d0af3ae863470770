#include "supervisor/egress/proxy.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/mutex.h"
#include "tests/supervisor/egress/dns_server.h"
#include "tests/supervisor/egress/hello_builder.h"
#include "tests/supervisor/egress/peers.h"

namespace creel::egress {
namespace {

using testing::ConnectUnix;
using testing::DnsServer;
using testing::Hello;
using testing::Peer;
using testing::ServerName;
using testing::Upstream;

constexpr char kId[] = "0123456789abcdef";

bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Answers each request with what it was sent, until the other end has had enough.
void Echo(Peer& peer) {
  for (;;) {
    const std::string head = peer.Take("\r\n\r\n");
    if (peer.ended() || !Holds(head, "\r\n\r\n")) {
      return;
    }
    peer.Say(fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", head.size(), head));
  }
}

// A proxy with a door, and a DNS server of its own.
struct House {
  explicit House(EgressConfig wanted) {
    char name[] = "/tmp/creel-proxy-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    dir = name;
    config = std::move(wanted);
    config.resolvers = {dns.address()};
    auto started = Proxy::Start({.config = config,
                                 .recorder =
                                     [this](const Record& record) {
                                       MutexLock lock(mu);
                                       if (!recording.ok() && record.allowed &&
                                           record.phase == Record::Phase::kDecided) {
                                         return recording;
                                       }
                                       records.push_back(record);
                                       return absl::OkStatus();
                                     },
                                 .problem = {}});
    REQUIRE(started.ok());
    proxy = *std::move(started);
    proxy->SetFacts([this](const std::string&) {
      MutexLock lock(mu);
      return asker;
    });
    Open();
  }
  ~House() {
    door.reset();
    proxy.reset();
    std::filesystem::remove_all(dir);
  }
  void Open() {
    auto opened =
        proxy->Open({.directory = dir, .sandbox = kId, .peer_uid = geteuid(), .peer_pid = [this] {
                       return peer_pid;
                     }});
    REQUIRE(opened.ok());
    door = *opened;
  }
  [[nodiscard]] Peer Connect() const { return ConnectUnix(dir + "/egress.sock"); }
  // What the recorder says to what is to go out.
  void SetRecording(absl::Status status) {
    MutexLock lock(mu);
    recording = std::move(status);
  }
  void SetAsker(const Asker& other) {
    MutexLock lock(mu);
    asker = other;
  }
  size_t Count(Record::Phase phase) {
    MutexLock lock(mu);
    return static_cast<size_t>(
        std::count_if(records.begin(), records.end(),
                      [phase](const Record& record) { return record.phase == phase; }));
  }
  // Waits until so many were decided.
  void Decided(size_t count) {
    for (int i = 0; i < 2000 && Count(Record::Phase::kDecided) < count; ++i) {
      usleep(10'000);
    }
    REQUIRE(Count(Record::Phase::kDecided) >= count);
  }
  // The last record that ended, once there are so many.
  Record Ended(size_t count) {
    for (int i = 0; i < 2000; ++i) {
      {
        MutexLock lock(mu);
        size_t ended = 0;
        for (const Record& record : records) {
          ended += record.phase == Record::Phase::kEnded ? 1 : 0;
          if (ended == count) {
            return record;
          }
        }
      }
      usleep(10'000);
    }
    FAIL("no such record");
    return {};
  }

  std::string dir;
  DnsServer dns;
  EgressConfig config;
  Mutex mu;
  absl::Status recording ABSL_GUARDED_BY(mu);
  Asker asker{.sandbox = kId, .session = "agent:main:x", .level = "friend"};
  std::vector<Record> records;
  int peer_pid = 0;
  std::unique_ptr<Proxy> proxy;
  std::shared_ptr<void> door;
};

EgressConfig WithService(uint16_t port, EgressCredential credential = {}) {
  EgressConfig config;
  EgressService service;
  service.name = "api";
  service.url = fmt::format("http://127.0.0.1:{}/v1", port);
  service.who.levels = {"friend"};
  service.allow = {{.methods = {"GET", "HEAD", "POST"}, .path = "/**"}};
  service.credential = std::move(credential);
  service.websocket = true;
  config.services = {service};
  return config;
}

// The credential s3cr3t-key-value, in a header.
EgressCredential TestKey() {
  setenv("CREEL_TEST_KEY", "s3cr3t-key-value", 1);
  return {.kind = EgressCredential::Kind::kHeader,
          .name = "X-Key",
          .user = {},
          .file = {},
          .env = "CREEL_TEST_KEY",
          .command = {}};
}

// What asks for a websocket, and what grants it.
const std::string kSwitch =
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const std::string kSwitched =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

// One text of a websocket's, shorter than 126 bytes.
std::string Frame(const std::string& text) {
  return std::string("\x81") + static_cast<char>(text.size()) + text;
}

EgressConfig WithHost(uint16_t port) {
  EgressConfig config;
  config.hosts = {{.name = "a.example",
                   .ports = {port},
                   .who = {.levels = {"friend"}, .sessions = {}},
                   .addresses = {"127.0.0.0/8"}}};
  return config;
}

std::string Get(const std::string& path, const std::string& more = "") {
  return fmt::format("GET http://api.creel{} HTTP/1.1\r\nHost: api.creel\r\n{}\r\n", path, more);
}

std::string ConnectTo(const std::string& to) {
  return fmt::format("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", to);
}

TEST_SUITE("Proxy") {
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
    setenv("CREEL_TEST_KEY", "s3cr3t-key-value", 1);
    House house(WithService(upstream.port(), {.kind = EgressCredential::Kind::kHeader,
                                              .name = "X-Key",
                                              .user = {},
                                              .file = {},
                                              .env = "CREEL_TEST_KEY",
                                              .command = {}}));
    Peer peer = house.Connect();
    peer.Say(Get("/stream"));
    CHECK(Holds(peer.Hear("first\n\n"), "first\n\n"));
    const std::string all = peer.Hear("0\r\n\r\n");
    CHECK_FALSE(Holds(all, "s3cr3"));
    CHECK_FALSE(Holds(all, "t-key"));
    CHECK(Holds(all, "****************"));
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
    setenv("CREEL_TEST_KEY", "s3cr3t-key-value", 1);
    for (const char* text : kReplies) {
      CAPTURE(text);
      Upstream upstream([text](Peer& peer) {
        peer.Hear("\r\n\r\n");
        peer.Say(text);
      });
      House house(WithService(upstream.port(), {.kind = EgressCredential::Kind::kHeader,
                                                .name = "X-Key",
                                                .user = {},
                                                .file = {},
                                                .env = "CREEL_TEST_KEY",
                                                .command = {}}));
      Peer peer = house.Connect();
      peer.Say(Get("/"));
      CHECK(peer.Hear("").starts_with("HTTP/1.1 502"));
    }
  }

  TEST_CASE("what is malformed in a service's reply is not quoted") {
    static constexpr char kSecret[] = "s3cr3t-key-value";
    setenv("CREEL_TEST_KEY", kSecret, 1);
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
      House house(WithService(upstream.port(), {.kind = EgressCredential::Kind::kHeader,
                                                .name = "X-Key",
                                                .user = {},
                                                .file = {},
                                                .env = "CREEL_TEST_KEY",
                                                .command = {}}));
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
