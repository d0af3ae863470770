#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/event_loop.h"
#include "supervisor/base/status.h"
#include "supervisor/egress/address.h"

struct ares_channeldata;
struct ares_addrinfo;

namespace creel::egress {

// Names to addresses, by DNS, without blocking. Answers are kept as long as they say, at most five
// minutes. For the loop's thread alone.
class Resolver {
 public:
  using Addresses = std::vector<IpAddress>;
  using Done = std::function<void(const absl::StatusOr<Addresses>&)>;

  // `servers` as in EgressConfig::resolvers; empty: the machine's own, and its hosts file. `loop`
  // must outlive it.
  static absl::StatusOr<std::unique_ptr<Resolver>> Start(EventLoop& loop,
                                                         const std::vector<std::string>& servers);
  // Questions under way end with kCancelled.
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // Calls `done` exactly once, possibly at once: every address of `host`, IPv4 first. kNotFound: it
  // has none. kUnavailable: no server answered.
  void Resolve(const std::string& host, Done done);

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Cached {
    absl::StatusOr<Addresses> answer;
    Time until;
  };
  struct Question;
  struct Watched {
    EventLoop::Id watch = 0;
    uint32_t events = 0;
  };

  explicit Resolver(EventLoop& loop) : loop_(loop) {}
  void Answer(const std::string& host, int status, const ares_addrinfo* found);
  void OnSocket(int fd, bool readable, bool writable);
  void ArmTimer();

  EventLoop& loop_;
  ares_channeldata* channel_ = nullptr;
  std::map<std::string, Cached> cache_;
  std::map<std::string, std::vector<Done>> asking_;
  std::map<int, Watched> sockets_;
  EventLoop::Id timer_ = 0;
};

}  // namespace creel::egress
