#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/egress/address.h"

namespace creel::egress::testing {

// A DNS server on loopback that knows what it is told, over UDP.
class DnsServer {
 public:
  struct Entry {
    std::vector<std::string> addresses;  // IPv4
    uint32_t ttl = 60;
    std::string alias{};  // the name that the addresses are said to be of
  };

  DnsServer() : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    socklen_t size = sizeof address;
    getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Work(); });
  }
  ~DnsServer() {
    stop_ = true;
    thread_.join();
  }

  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void Set(const std::string& name, Entry entry) {
    MutexLock lock(mu_);
    entries_[name] = std::move(entry);
  }
  // Questions for IPv4 addresses of this name so far.
  int asked(const std::string& name) {
    MutexLock lock(mu_);
    return asked_[name];
  }

 private:
  static std::string Coded(const std::string& name) {
    std::string out;
    for (size_t at = 0; at < name.size();) {
      const size_t dot = std::min(name.find('.', at), name.size());
      out.push_back(static_cast<char>(dot - at));
      out += name.substr(at, dot - at);
      at = dot + 1;
    }
    return out + std::string(1, '\0');
  }
  static std::string Short(unsigned value) {
    return {static_cast<char>(value >> 8), static_cast<char>(value & 0xff)};
  }

  std::string Answer(const std::string& question) {
    std::string name;
    size_t at = 12;
    while (at < question.size() && question[at] != 0) {
      const auto length = static_cast<size_t>(question[at]);
      name += (name.empty() ? "" : ".") + question.substr(at + 1, length);
      at += length + 1;
    }
    const std::string asked = question.substr(12, at + 5 - 12);
    const bool v4 = question[at + 2] == 1;
    MutexLock lock(mu_);
    asked_[name] += v4 ? 1 : 0;
    const auto found = entries_.find(name);
    std::string answers;
    unsigned count = 0;
    if (found != entries_.end() && v4) {
      const Entry& entry = found->second;
      const std::string ttl = Short(entry.ttl >> 16) + Short(entry.ttl & 0xffff);
      std::string owner = Coded(name);
      if (!entry.alias.empty()) {
        const std::string alias = Coded(entry.alias);
        answers += owner + Short(5) + Short(1) + ttl + Short(alias.size()) + alias;
        owner = alias;
        ++count;
      }
      for (const std::string& text : entry.addresses) {
        const auto address = IpAddress::Parse(text);
        answers += owner + Short(1) + Short(1) + ttl + Short(4) +
                   std::string(reinterpret_cast<const char*>(address->bytes.data()), 4);
        ++count;
      }
    }
    const unsigned flags = found == entries_.end() ? 0x8583 : 0x8580;
    return question.substr(0, 2) + Short(flags) + Short(1) + Short(count) + Short(0) + Short(0) +
           asked + answers;
  }

  void Work() {
    while (!stop_) {
      pollfd ready{.fd = socket_.get(), .events = POLLIN, .revents = 0};
      if (poll(&ready, 1, 50) <= 0) {
        continue;
      }
      char buffer[512];
      sockaddr_in from{};
      socklen_t size = sizeof from;
      const ssize_t got = recvfrom(socket_.get(), buffer, sizeof buffer, 0,
                                   reinterpret_cast<sockaddr*>(&from), &size);
      if (got < 17) {
        continue;
      }
      const std::string reply = Answer(std::string(buffer, static_cast<size_t>(got)));
      sendto(socket_.get(), reply.data(), reply.size(), 0, reinterpret_cast<sockaddr*>(&from),
             size);
    }
  }

  const UniqueFd socket_;
  uint16_t port_ = 0;
  Mutex mu_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int> asked_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace creel::egress::testing
