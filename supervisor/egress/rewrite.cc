#include "supervisor/egress/rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <string_view>

namespace creel::egress {
namespace {

using Kind = EgressCredential::Kind;

constexpr std::array<std::string_view, 12> kHopByHop{
    "Connection", "Keep-Alive",         "Proxy-Connection", "Proxy-Authorization",
    "TE",         "Proxy-Authenticate", "Trailer",          "Transfer-Encoding",
    "Upgrade",    "Content-Length",     "Expect",           "HTTP2-Settings"};
// By these a server that trusts whoever stands in front of it may take the sandbox for somebody
// else: the names, and how others begin.
constexpr std::array<std::string_view, 19> kIdentity{"Proxy",
                                                     "Forwarded",
                                                     "X-Forwarded",
                                                     "X-Real-IP",
                                                     "X-User",
                                                     "Client-IP",
                                                     "X-Client-IP",
                                                     "True-Client-IP",
                                                     "CF-Connecting-IP",
                                                     "CF-Connecting-IPv6",
                                                     "CF-Access-Jwt-Assertion",
                                                     "Fastly-Client-IP",
                                                     "Fly-Client-IP",
                                                     "X-Cluster-Client-IP",
                                                     "X-ProxyUser-IP",
                                                     "X-Originating-IP",
                                                     "X-Azure-ClientIP",
                                                     "X-ARR-ClientCert",
                                                     "X-Goog-IAP-JWT-Assertion"};
constexpr std::array<std::string_view, 19> kIdentityPrefixes{"X-Forwarded-",
                                                             "X-Remote-",
                                                             "X-Auth-Request-",
                                                             "X-Original-",
                                                             "X-Authenticated-",
                                                             "X-WebAuth-",
                                                             "X-SSL-Client-",
                                                             "X-Client-Cert",
                                                             "X-Envoy-",
                                                             "X-Goog-Authenticated-User-",
                                                             "X-Amzn-Oidc-",
                                                             "X-Amzn-Mtls-",
                                                             "X-MS-Client-Principal",
                                                             "X-Appengine-",
                                                             "X-Authentik-",
                                                             "X-Pomerium-",
                                                             "CF-Access-Authenticated-",
                                                             "Remote-",
                                                             "Tailscale-"};

template <size_t kCount>
bool IsOneOf(const std::array<std::string_view, kCount>& names, std::string_view name) {
  return std::any_of(names.begin(), names.end(),
                     [&](std::string_view each) { return EqualsIgnoreCase(each, name); });
}

bool IsIdentity(std::string_view name) {
  return IsOneOf(kIdentity, name) ||
         std::any_of(kIdentityPrefixes.begin(), kIdentityPrefixes.end(),
                     [&](std::string_view each) {
                       return EqualsIgnoreCase(each, name.substr(0, each.size()));
                     });
}

bool IsPassedOn(const Header& header, const RequestHead& head, const Rewrite& rewrite) {
  const std::string& name = header.name;
  if (EqualsIgnoreCase(name, "Host") || IsOneOf(kHopByHop, name) || IsIdentity(name) ||
      ListHolds(head.headers, "Connection", name)) {
    return false;
  }
  if (rewrite.secret == nullptr) {
    return true;
  }
  const EgressCredential& credential = rewrite.service->credential;
  // What would keep the reply from being read and masked, or show the credential in slices.
  static constexpr std::array<std::string_view, 4> kHiding{"Accept-Encoding", "Range", "If-Range",
                                                           "Sec-WebSocket-Extensions"};
  return !IsOneOf(kHiding, name) && !EqualsIgnoreCase(name, "Authorization") &&
         !(credential.kind == Kind::kHeader && EqualsIgnoreCase(name, credential.name));
}

// The query without the credential's parameter, and with the credential.
std::string QueryOf(const UrlTarget& to, const Rewrite& rewrite) {
  if (rewrite.secret == nullptr || rewrite.service->credential.kind != Kind::kQuery) {
    return to.has_query ? "?" + to.query : "";
  }
  const std::string& name = rewrite.service->credential.name;
  std::string query;
  std::string_view rest = to.query;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto parsed = ParseQuery(part);
    if (parsed.ok() && !parsed->empty() && LooseName(parsed->front().first) == LooseName(name)) {
      continue;
    }
    query += fmt::format("{}&", part);
  }
  return fmt::format("?{}{}={}", query, name, PercentEncoded(rewrite.secret->value));
}

}  // namespace

ServiceUrl SplitServiceUrl(const EgressService& service) {
  ServiceUrl split;
  Destination& to = split.destination;
  to.trusted = true;
  to.ca = service.ca;
  std::string_view url = service.url;
  if (url.starts_with("unix://")) {
    to.unix_path = url.substr(7);
    split.host = "localhost";
    return split;
  }
  to.tls = url.starts_with("https://");
  url.remove_prefix(to.tls ? 8 : 7);
  const size_t slash = std::min(url.find('/'), url.size());
  const std::string_view authority = url.substr(0, slash);
  split.base = url.substr(slash);
  if (split.base.ends_with('/')) {
    split.base.pop_back();
  }
  split.host = authority;
  to.port = to.tls ? 443 : 80;
  std::string_view host = authority;
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos) {
    std::from_chars(authority.data() + colon + 1, authority.data() + authority.size(), to.port);
    host = authority.substr(0, colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  to.host = AsciiLower(host);
  return split;
}

std::string UpstreamHead(const RequestHead& head, const UrlTarget& to, const Rewrite& rewrite) {
  std::string out = fmt::format("{} {}{}{} HTTP/1.1\r\nHost: {}\r\n", head.method, rewrite.base,
                                to.path, QueryOf(to, rewrite), rewrite.host);
  const auto add = [&](std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, value);
  };
  for (const Header& header : head.headers) {
    if (IsPassedOn(header, head, rewrite)) {
      add(header.name, header.value);
    }
  }
  if (rewrite.secret != nullptr) {
    add("Accept-Encoding", "identity");
    const EgressCredential& credential = rewrite.service->credential;
    if (credential.kind == Kind::kHeader) {
      add(credential.name, rewrite.secret->header);
    } else if (credential.kind != Kind::kQuery) {
      add("Authorization", rewrite.secret->header);
    }
  }
  if (rewrite.framing.kind == Framing::Kind::kChunked) {
    add("Transfer-Encoding", "chunked");
  } else if (rewrite.framing.kind == Framing::Kind::kLength) {
    add("Content-Length", std::to_string(rewrite.framing.length));
  }
  if (rewrite.upgrade) {
    add("Connection", "Upgrade");
    add("Upgrade", FindHeader(head.headers, "Upgrade")->value);
  }
  return out + "\r\n";
}

std::string SandboxHead(const ResponseHead& head, const Masker& masker, const std::string& url,
                        const std::string& name, bool upgraded) {
  std::string out = fmt::format("HTTP/1.1 {} \r\n", head.status);
  for (const Header& header : head.headers) {
    const bool handshake = upgraded && EqualsIgnoreCase(header.name, "Upgrade");
    if ((IsOneOf(kHopByHop, header.name) && !handshake) ||
        ListHolds(head.headers, "Connection", header.name) != handshake ||
        EqualsIgnoreCase(header.name, "Alt-Svc") ||
        EqualsIgnoreCase(header.name, "X-Creel-Reason") ||
        masker.Masked(header.name) != header.name) {
      continue;
    }
    std::string value = header.value;
    const bool place = EqualsIgnoreCase(header.name, "Location") ||
                       EqualsIgnoreCase(header.name, "Content-Location");
    if (place && !name.empty() && !url.empty() && value.starts_with(url) &&
        (value.size() == url.size() || value[url.size()] == '/' || value[url.size()] == '?')) {
      value = fmt::format("http://{}.creel{}", name, value.substr(url.size()));
    }
    fmt::format_to(std::back_inserter(out), "{}: {}\r\n", header.name, masker.Masked(value));
  }
  return out;
}

}  // namespace creel::egress
