#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervisor/base/event_loop.h"
#include "supervisor/base/flow.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/egress/credentials.h"
#include "supervisor/egress/dialer.h"
#include "supervisor/egress/limits.h"
#include "supervisor/egress/record.h"
#include "supervisor/egress/rules.h"

namespace creel::egress {

class Connection;

// What all connections share. Its members are the loop's thread's, but for `credentials`.
struct House {
  EventLoop& loop;
  Credentials& credentials;
  TlsClient tls{};
  std::unique_ptr<Resolver> resolver{};
  std::unique_ptr<Dialer> dialer{};
  FlowPipes pipes{64};
  std::shared_ptr<const Rules> rules{};
  std::function<Asker(const std::string& sandbox)> facts{};
  Recorder recorder{};
  // What the operator should know, for the log.
  std::function<void(const std::string&)> problem{};
  uint64_t records = 0;
  size_t connections = 0;
  std::string all_cut{};  // why nobody gets out; empty: they do
  [[nodiscard]] const EgressLimits& limits() const { return rules->config().limits; }
};

// One sandbox's socket, with its connections. Its members are the loop's thread's.
struct Door {
  std::string sandbox;
  UniqueFd listener;
  EventLoop::Id watch = 0;
  std::optional<uid_t> peer_uid;
  std::function<int()> peer_pid;
  std::set<std::shared_ptr<Connection>> connections;
  Bucket requests{1};
  Bucket bytes{1};
  // When a refusal by the rate was last recorded, and how many were not since.
  std::chrono::steady_clock::time_point rate_told{};
  uint64_t rate_untold = 0;
  std::string cut;  // why it is shut; empty: it is not
  bool closed = false;
  bool waiting = false;  // for a place
};

}  // namespace creel::egress
