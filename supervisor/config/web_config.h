#pragma once

#include <string>
#include <vector>

namespace creel {

// The page and the metrics; see docs/page.md.
struct WebConfig {
  bool enabled = true;
  // `address:port`; port 0 takes any that is free. Below 1024, so that nobody else on this host can
  // pose as the page while creeld is away.
  std::string listen = "127.0.0.1:773";
  // What browsers may call us by besides our own address, as their Host header says it.
  std::vector<std::string> hosts;
  bool metrics = true;
  bool operator==(const WebConfig&) const = default;
};

}  // namespace creel
