#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/config/egress_config.h"
#include "supervisor/egress/http_head.h"
#include "supervisor/egress/target.h"

namespace creel::egress {

// Who wants out.
struct Asker {
  std::string sandbox{};
  std::string session{};
  std::string level{};     // empty counts as the lowest, `stranger`
  bool read_only = false;  // read-only mode is on for it
};

// What the rules say. The pointers belong to the Rules that gave it.
struct Verdict {
  bool allowed = false;
  // What decided: `host pypi.org`, `service gowa`, or what kind of refusal it is.
  std::string rule{};
  std::string reason{};  // a sentence, of a refusal
  std::string add{};  // what the operator would add to the configuration; empty: nothing would help
  const EgressHost* host = nullptr;
  const EgressService* service = nullptr;
  const EgressRoute* route = nullptr;
};

// The name under which services are found, `.creel`.
inline constexpr std::string_view kServiceSuffix = ".creel";

// The operator's rules. Pure: the same question has the same answer. Immutable, so that a reload
// makes another one.
class Rules {
 public:
  explicit Rules(EgressConfig config) : config_(std::move(config)) {}

  // May it have a tunnel (CONNECT, SOCKS) there?
  [[nodiscard]] Verdict Tunnel(const Asker& asker, const Authority& to) const;
  // May it send this request, as it is, to a host that is no service?
  [[nodiscard]] Verdict PlainHttp(const Asker& asker, const UrlTarget& to,
                                  const RequestHead& head) const;
  // May it send this request to a service?
  [[nodiscard]] Verdict Service(const Asker& asker, const UrlTarget& to,
                                const RequestHead& head) const;

  [[nodiscard]] const EgressConfig& config() const { return config_; }

 private:
  const EgressConfig config_;
};

// Whether the target names a service rather than a host.
bool NamesService(const std::string& host);

}  // namespace creel::egress
