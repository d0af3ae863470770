#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"

namespace creel::egress::testing {

// One end of a connection, for a test that says and hears bytes.
class Peer {
 public:
  explicit Peer(UniqueFd socket) : socket_(std::move(socket)) {}

  void Say(const std::string& bytes) const {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t put =
          send(socket_.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (put <= 0) {
        return;
      }
      sent += static_cast<size_t>(put);
    }
  }
  // Waits until what was heard holds `text`; returns all that was heard and not taken, as far as it
  // came. Empty `text`: until the end.
  std::string Hear(const std::string& text,
                   std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (text.empty() || heard_.find(text) == std::string::npos) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      pollfd ready{.fd = socket_.get(), .events = POLLIN, .revents = 0};
      char buffer[16384];
      if (left.count() <= 0 || poll(&ready, 1, static_cast<int>(left.count())) <= 0) {
        return heard_ + "<nothing more>";
      }
      const ssize_t got = recv(socket_.get(), buffer, sizeof buffer, 0);
      if (got <= 0) {
        ended_ = true;
        break;
      }
      heard_.append(buffer, static_cast<size_t>(got));
    }
    return heard_;
  }
  // The same, and forgets what was heard.
  std::string Take(const std::string& text) {
    std::string all = Hear(text);
    heard_.clear();
    return all;
  }
  void EndWrites() const { shutdown(socket_.get(), SHUT_WR); }
  [[nodiscard]] bool ended() const { return ended_; }

 private:
  UniqueFd socket_;
  std::string heard_;
  bool ended_ = false;
};

inline Peer ConnectUnix(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    socket.reset();
  }
  return Peer(std::move(socket));
}

// A server on loopback that does with each connection what it is told, on a thread for each.
class Upstream {
 public:
  explicit Upstream(std::function<void(Peer&)> serve)
      : serve_(std::move(serve)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    listen(listener_.get(), 64);
    socklen_t size = sizeof address;
    getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (;;) {
        UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket.valid()) {
          return;
        }
        MutexLock lock(mu_);
        ++connections_;
        threads_.emplace_back([this, peer = Peer(std::move(socket))]() mutable { serve_(peer); });
      }
    });
  }
  ~Upstream() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    for (std::thread& each : threads_) {
      each.join();
    }
  }

  [[nodiscard]] uint16_t port() const { return port_; }
  int connections() {
    MutexLock lock(mu_);
    return connections_;
  }

 private:
  const std::function<void(Peer&)> serve_;
  const UniqueFd listener_;
  uint16_t port_ = 0;
  Mutex mu_;
  int connections_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::thread> threads_;  // grows on thread_ alone
  std::thread thread_;
};

}  // namespace creel::egress::testing
