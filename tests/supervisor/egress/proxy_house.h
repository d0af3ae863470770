#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/egress/proxy.h"
#include "tests/supervisor/egress/dns_server.h"
#include "tests/supervisor/egress/peers.h"

namespace creel::egress::testing {

inline constexpr char kId[] = "0123456789abcdef";

inline bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Answers each request with what it was sent, until the other end has had enough.
inline void Echo(Peer& peer) {
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

inline EgressConfig WithService(uint16_t port, EgressCredential credential = {}) {
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
inline EgressCredential TestKey() {
  setenv("CREEL_TEST_KEY", "s3cr3t-key-value", 1);
  return {.kind = EgressCredential::Kind::kHeader,
          .name = "X-Key",
          .user = {},
          .file = {},
          .env = "CREEL_TEST_KEY",
          .command = {}};
}

// What asks for a websocket, and what grants it.
inline const std::string kSwitch =
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
inline const std::string kSwitched =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

// One text of a websocket's, shorter than 126 bytes.
inline std::string Frame(const std::string& text) {
  return std::string("\x81") + static_cast<char>(text.size()) + text;
}

inline EgressConfig WithHost(uint16_t port) {
  EgressConfig config;
  config.hosts = {{.name = "a.example",
                   .ports = {port},
                   .who = {.levels = {"friend"}, .sessions = {}},
                   .addresses = {"127.0.0.0/8"}}};
  return config;
}

inline std::string Get(const std::string& path, const std::string& more = "") {
  return fmt::format("GET http://api.creel{} HTTP/1.1\r\nHost: api.creel\r\n{}\r\n", path, more);
}

inline std::string ConnectTo(const std::string& to) {
  return fmt::format("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", to);
}

}  // namespace creel::egress::testing
