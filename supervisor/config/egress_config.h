#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace creel {

// Whom a rule is for: sandboxes of one of these trust levels and of one of these sessions (`*`
// stands for any characters); where one list is empty, it does not count. Never both.
struct EgressWho {
  std::vector<std::string> levels{};
  std::vector<std::string> sessions{};
  bool operator==(const EgressWho&) const = default;
};

// A secret that is added to requests outside of the sandbox.
struct EgressCredential {
  enum class Kind {
    kNone,
    kHeader,  // the header `name` is the value
    kBearer,  // `Authorization: Bearer VALUE`
    kBasic,   // `Authorization: Basic`, of `user` and the value
    kQuery,   // the query parameter `name` is the value
  };
  Kind kind = Kind::kNone;
  std::string name{};
  std::string user{};
  // Where the value comes from; exactly one.
  std::string file{};
  std::string env{};
  std::vector<std::string> command{};
  // The value is fetched again when it is older than this.
  std::chrono::seconds refresh{300};
  bool operator==(const EgressCredential&) const = default;
};

// A kind of request that a service takes. Patterns: `*` is any characters but `/`, `**` any at all.
struct EgressRoute {
  std::vector<std::string> methods{"GET", "HEAD"};
  std::string path{};
  // The only parameters that there may be, each with the pattern of its value; unset: any.
  std::optional<std::map<std::string, std::string>> query{};
  // Headers that there must be, in lower case, each with the pattern of its value.
  std::map<std::string, std::string> headers{};
  uint64_t max_body_bytes = 1ull << 20;
  bool operator==(const EgressRoute&) const = default;
};

// An HTTP API that sandboxes reach as `http://NAME.creel/…`.
struct EgressService {
  std::string name{};
  // http://, https:// with a base path, or unix:///path/of.sock
  std::string url{};
  EgressWho who{};
  std::vector<EgressRoute> allow{};
  EgressCredential credential{};
  // PEM file of the only CAs that vouch for the URL's host; empty: the machine's.
  std::string ca{};
  // The reply's body, in bytes; 0: no limit.
  uint64_t max_reply_bytes = 0;
  bool websocket = false;
  // Goes on in read-only mode.
  bool in_read_only = false;
  int line = 0;  // in the configuration
  bool operator==(const EgressService&) const = default;
};

// Names that sandboxes reach by CONNECT.
struct EgressHost {
  std::string name{};  // in lower case; `*.suffix` for all below, but not the suffix itself
  std::vector<uint16_t> ports{443};
  EgressWho who{};
  // Networks in CIDR form that the name may resolve to although they are not public.
  std::vector<std::string> addresses{};
  bool plain_http = false;  // absolute-form requests without TLS instead of CONNECT
  std::vector<std::string> methods{"GET", "HEAD"};  // of plain_http
  bool no_sni = false;  // a ClientHello without a name will do; needs a concession
  bool no_tls = false;  // any bytes; needs a concession
  bool in_read_only = false;
  int line = 0;
  bool operator==(const EgressHost&) const = default;
};

struct EgressLimits {
  uint32_t connections = 256;         // of one sandbox
  uint32_t connections_total = 4096;  // of all
  uint32_t requests_per_minute = 1200;
  uint64_t bytes_per_minute = 1ull << 30;  // both directions
  uint64_t head_bytes = 32u << 10;
  std::chrono::milliseconds head_timeout{10'000};
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::milliseconds idle_timeout{300'000};
  std::chrono::milliseconds total_timeout{3'600'000};
  bool operator==(const EgressLimits&) const = default;
};

// What sandboxes may reach. Nothing, by default.
struct EgressConfig {
  std::vector<EgressService> services;
  std::vector<EgressHost> hosts;
  // DNS servers, `address` or `address:port`; empty: the machine's own.
  std::vector<std::string> resolvers;
  EgressLimits limits;
  // Whether sandboxes get a way out at all.
  [[nodiscard]] bool configured() const { return !services.empty() || !hosts.empty(); }
  bool operator==(const EgressConfig&) const = default;
};

}  // namespace creel
