#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/event_limiter.h"
#include "supervisor/web/live_hub.h"
#include "supervisor/web/logins.h"
#include "supervisor/web/metrics.h"
#include "supervisor/web/operator_calls.h"

namespace creel::web {

// A bundle of evidence that a page may fetch, once and soon, by a name that cannot be guessed: a
// download is a navigation, which carries the cookie and not the page's key. Good while the login
// stands that it was made for, and with that one's cookie.
struct Ticket {
  std::string cookie;
  std::string key;
  std::string path;
  std::string name;  // for the file that the browser makes
  std::chrono::steady_clock::time_point until;
};

class Connection;

// What all connections share; of the io_context's thread alone.
struct Site {
  boost::asio::io_context& io;
  std::vector<std::string> hosts;  // what we are called, see CheckOrigin
  std::string cookie_name;         // with the port, as cookies know none
  std::string state_dir;           // bundles lie below it
  bool serve_metrics = true;
  Logins& logins;
  OperatorCalls& calls;
  LiveHub& hub;
  Metrics& metrics;
  AuditLog* audit = nullptr;
  std::function<Caller(const std::string& who)> caller;
  std::map<std::string, Ticket> tickets{};
  EventLimiter refusals{};
  // Of its own, so that no flood of other refusals keeps a failed login out of the record.
  EventLimiter failed_logins{};
  int connections = 0;
  // Those that came without a login yet, the oldest first: they give way when there are too many.
  std::deque<std::weak_ptr<Connection>> strangers{};
};

// Writes down who came and went.
void Tell(Site& site, const std::string& act, const std::string& detail, const std::string& by);

}  // namespace creel::web
