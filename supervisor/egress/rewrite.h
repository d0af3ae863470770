#pragma once

#include <string>
#include <vector>

#include "supervisor/config/egress_config.h"
#include "supervisor/egress/credentials.h"
#include "supervisor/egress/dialer.h"
#include "supervisor/egress/http_head.h"
#include "supervisor/egress/masker.h"
#include "supervisor/egress/target.h"

namespace creel::egress {

// A service's URL, taken apart. The configuration has checked it.
struct ServiceUrl {
  Destination destination;
  std::string host;  // as a Host header says it
  std::string base;  // the path in front of a request's own, without '/' at its end
};
ServiceUrl SplitServiceUrl(const EgressService& service);

// How a request goes on from here.
struct Rewrite {
  std::string host{};                      // the Host header
  std::string base{};                      // in front of the path
  const EgressService* service = nullptr;  // null: a plain host
  const Secret* secret = nullptr;          // null: none is added
  Framing framing{};
  bool upgrade = false;
};

// The head for the upstream: what counts between two hops only, and what would speak for the
// sandbox or get in the way of the credential, is left out; the credential is added.
std::string UpstreamHead(const RequestHead& head, const UrlTarget& to, const Rewrite& rewrite);

// The head for the sandbox, without its last empty line: masked, and with places below `url`
// written as those of the service `name`.
std::string SandboxHead(const ResponseHead& head, const Masker& masker, const std::string& url,
                        const std::string& name, bool upgraded);

}  // namespace creel::egress
