#include "agent-shim/egress/relay.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/base/unix_socket.h"

namespace creel::shim {
namespace {

// A relay to a listener of the test's own.
struct House {
  explicit House(size_t max_connections = 16) {
    char name[] = "/tmp/creel-relay-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    dir = name;
    // As the shim does: a splice has no flag for it.
    signal(SIGPIPE, SIG_IGN);
    Listen();
    Relay::Options options;
    options.socket = dir + "/egress.sock";
    options.ports = {0};
    options.max_connections = max_connections;
    options.patience = std::chrono::milliseconds(300);
    auto started = Relay::Start(options);
    REQUIRE(started.ok());
    relay = *std::move(started);
  }
  ~House() {
    relay.reset();
    std::filesystem::remove_all(dir);
  }
  void Listen() {
    auto listening = ListenUnix(
        {.directory = dir, .name = "egress.sock", .owner = std::nullopt, .group = std::nullopt},
        64);
    REQUIRE(listening.ok());
    listener = *std::move(listening);
  }
  [[nodiscard]] UniqueFd Connect() const {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(relay->ports().at(0));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    return fd;
  }
  // The supervisor's end of the next connection; invalid if none comes.
  [[nodiscard]] UniqueFd Accept(int patience_ms = 10'000) const {
    pollfd ready{.fd = listener.get(), .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, patience_ms) <= 0) {
      return {};
    }
    return UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }

  std::string dir;
  UniqueFd listener;
  std::unique_ptr<Relay> relay;
};

std::string ReadUntilEnd(int fd) {
  std::string all;
  std::vector<char> buffer(1 << 16);
  for (ssize_t got = 0; (got = recv(fd, buffer.data(), buffer.size(), 0)) > 0;) {
    all.append(buffer.data(), static_cast<size_t>(got));
  }
  return all;
}

bool Eventually(const std::function<bool()>& holds) {
  for (int i = 0; i < 1000 && !holds(); ++i) {
    usleep(10'000);
  }
  return holds();
}

TEST_SUITE("EgressRelay") {
  TEST_CASE("bytes go both ways, and each end is passed on by itself") {
    const House house;
    const UniqueFd tool = house.Connect();
    const UniqueFd supervisor = house.Accept();
    REQUIRE(supervisor.valid());
    REQUIRE(send(tool.get(), "up", 2, 0) == 2);
    shutdown(tool.get(), SHUT_WR);
    CHECK(ReadUntilEnd(supervisor.get()) == "up");
    REQUIRE(send(supervisor.get(), "down", 4, 0) == 4);
    shutdown(supervisor.get(), SHUT_WR);
    CHECK(ReadUntilEnd(tool.get()) == "down");
    CHECK(Eventually([&] { return house.relay->connections() == 0; }));
  }

  TEST_CASE("much goes through whole, both ways at once") {
    const House house;
    const UniqueFd tool = house.Connect();
    const UniqueFd supervisor = house.Accept();
    std::string up(20u << 20, '\0');
    for (size_t i = 0; i < up.size(); ++i) {
      up[i] = static_cast<char>(i * 31 >> 3);
    }
    const std::string down(up.rbegin(), up.rend());
    const auto say = [](int fd, const std::string& text) {
      for (size_t at = 0; at < text.size();) {
        const ssize_t put = send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
        if (put <= 0) {
          break;
        }
        at += static_cast<size_t>(put);
      }
      shutdown(fd, SHUT_WR);
    };
    std::thread one([&] { say(tool.get(), up); });
    std::thread two([&] { say(supervisor.get(), down); });
    std::string heard;
    std::thread three([&] { heard = ReadUntilEnd(supervisor.get()); });
    const bool same = ReadUntilEnd(tool.get()) == down;
    one.join();
    two.join();
    three.join();
    CHECK(same);
    CHECK((heard == up));
  }

  TEST_CASE("a last word reaches a tool that still talks") {
    const House house;
    const UniqueFd tool = house.Connect();
    UniqueFd supervisor = house.Accept();
    REQUIRE(send(supervisor.get(), "refused", 7, 0) == 7);
    supervisor.reset();
    std::string text(1 << 20, 'x');
    static_cast<void>(send(tool.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
    CHECK(ReadUntilEnd(tool.get()) == "refused");
  }

  TEST_CASE("connections beyond the limit wait, and have their turn") {
    const House house(2);
    std::vector<UniqueFd> tools;
    for (int i = 0; i < 4; ++i) {
      tools.push_back(house.Connect());
    }
    UniqueFd first = house.Accept();
    const UniqueFd second = house.Accept();
    REQUIRE(second.valid());
    CHECK_FALSE(house.Accept(200).valid());
    CHECK(house.relay->connections() == 2);
    first.reset();
    tools[0].reset();
    tools[1].reset();
    CHECK(house.Accept().valid());
  }

  TEST_CASE("without a supervisor an HTTP client is told, and a new one is found") {
    House house;
    house.listener.reset();
    RemoveUnix({.directory = house.dir,
                .name = "egress.sock",
                .owner = std::nullopt,
                .group = std::nullopt});
    const UniqueFd tool = house.Connect();
    const std::string told = ReadUntilEnd(tool.get());
    CHECK(told.find("HTTP/1.1 503") == 0);
    CHECK(told.size() == told.find("\r\n\r\n") + 4 + 54);
    house.Listen();
    const UniqueFd again = house.Connect();
    const UniqueFd supervisor = house.Accept();
    REQUIRE(supervisor.valid());
    REQUIRE(send(again.get(), "up", 2, 0) == 2);
    shutdown(again.get(), SHUT_WR);
    CHECK(ReadUntilEnd(supervisor.get()) == "up");
  }

  TEST_CASE("a port that is taken is an error") {
    const House house;
    Relay::Options options;
    options.ports = {house.relay->ports().at(0)};
    CHECK(absl::IsAlreadyExists(Relay::Start(options).status()));
  }
}

}  // namespace
}  // namespace creel::shim
