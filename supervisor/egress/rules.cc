#include "supervisor/egress/rules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "supervisor/base/escape.h"

namespace creel::egress {
namespace {

constexpr size_t kShown = 120;

// By these a server may take a request for another one than the rules have seen.
constexpr std::array<std::string_view, 13> kOverrides{
    "X-HTTP-Method-Override", "X-HTTP-Method",      "X-Method-Override",
    "X-Original-Method",      "X-Original-URL",     "X-Rewrite-URL",
    "X-Forwarded-Prefix",     "X-Method",           "X-HTTP-Verb",
    "Method-Override",        "X-Forwarded-Method", "X-Override-URL",
    "X-Forwarded-Uri"};
constexpr std::array<std::string_view, 2> kOverrideParameters{"_method", "X-HTTP-Method-Override"};

std::string LevelOf(const Asker& asker) { return asker.level.empty() ? "stranger" : asker.level; }

bool IsFor(const EgressWho& who, const Asker& asker) {
  const bool level = who.levels.empty() || std::find(who.levels.begin(), who.levels.end(),
                                                     LevelOf(asker)) != who.levels.end();
  const bool session =
      who.sessions.empty() ||
      std::any_of(who.sessions.begin(), who.sessions.end(), [&](const std::string& pattern) {
        return MatchesFreely(pattern, asker.session);
      });
  return level && session && !(who.levels.empty() && who.sessions.empty());
}

Verdict Refused(std::string rule, std::string reason, std::string add = {}) {
  return {.allowed = false,
          .rule = std::move(rule),
          .reason = std::move(reason),
          .add = std::move(add)};
}

std::string HostLine(const Asker& asker, const Authority& to, bool plain) {
  return fmt::format("egress: {{hosts: [{{name: {}, ports: [{}], levels: [{}]{}}}]}}", to.host,
                     to.port, LevelOf(asker), plain ? ", plain_http: true" : "");
}

Verdict NotForYou(const std::string& rule, const Asker& asker) {
  return Refused(rule,
                 fmt::format("it is not for sandboxes of level '{}' in this session",
                             Printable(LevelOf(asker), 40)),
                 fmt::format("levels: [{}]   # in {}", LevelOf(asker), rule));
}

Verdict ReadOnly(const std::string& rule) {
  return Refused(rule, "read-only mode is on, and this rule does not go on in it",
                 fmt::format("in_read_only: true   # in {}", rule));
}

// Of several rules for a name the first that allows counts; else the one that came nearest says
// why.
Verdict DecideHost(const EgressConfig& config, const Asker& asker, const Authority& to, bool plain,
                   const std::string& method) {
  Verdict nearest =
      Refused("default", fmt::format("no rule names {}:{}", Printable(to.host, kShown), to.port),
              HostLine(asker, to, plain));
  for (const EgressHost& host : config.hosts) {
    if (!CoversHost(host.name, to.host)) {
      continue;
    }
    const std::string rule = fmt::format("host {}", host.name);
    Verdict verdict{.allowed = true, .rule = rule, .host = &host};
    if (std::find(host.ports.begin(), host.ports.end(), to.port) == host.ports.end()) {
      verdict = Refused(
          rule, fmt::format("port {} is not one of {}", to.port, fmt::join(host.ports, ", ")),
          HostLine(asker, to, plain));
    } else if (host.plain_http != plain) {
      verdict = plain ? Refused(rule, "only tunnels (https) lead there, no plain http",
                                HostLine(asker, to, plain))
                      : Refused(rule, "only plain http leads there, no tunnel",
                                HostLine(asker, to, plain));
    } else if (!IsFor(host.who, asker)) {
      verdict = NotForYou(rule, asker);
    } else if (asker.read_only && !host.in_read_only) {
      verdict = ReadOnly(rule);
    } else if (plain &&
               std::find(host.methods.begin(), host.methods.end(), method) == host.methods.end()) {
      verdict = Refused(
          rule,
          fmt::format("the method {} is not one of {}", method, fmt::join(host.methods, ", ")),
          fmt::format("methods: [{}, {}]   # in {}", fmt::join(host.methods, ", "), method, rule));
    }
    if (verdict.allowed) {
      return verdict;
    }
    nearest = std::move(verdict);
  }
  return nearest;
}

// What keeps two readers from understanding the request differently; empty: nothing does.
std::string WhyAmbiguous(const UrlTarget& to, const RequestHead& head) {
  if (const absl::Status path = CheckPath(to.path); !path.ok()) {
    return std::string(path.message());
  }
  for (const std::string_view name : kOverrides) {
    if (FindHeader(head.headers, name) != nullptr) {
      return fmt::format("the header {} asks for another request than this one", name);
    }
  }
  const auto query = ParseQuery(to.query);
  if (!query.ok()) {
    return std::string(query.status().message());
  }
  // Some servers split at ';' as well.
  std::string split = to.query;
  std::replace(split.begin(), split.end(), ';', '&');
  for (const auto& parameters : {query, ParseQuery(split)}) {
    for (const auto& [name, value] : *parameters) {
      for (const std::string_view trick : kOverrideParameters) {
        if (LooseName(name) == LooseName(trick)) {
          return fmt::format("the parameter {} asks for another request than this one", trick);
        }
      }
    }
  }
  return {};
}

// Where it counts which parameters there are, what keeps a server that splits at ';' from seeing
// the same ones; empty: nothing does.
std::string WhyAmbiguousQuery(const EgressService& service, const UrlTarget& to) {
  const bool counts = service.credential.kind == EgressCredential::Kind::kQuery ||
                      std::any_of(service.allow.begin(), service.allow.end(),
                                  [](const EgressRoute& route) { return route.query.has_value(); });
  if (!counts) {
    return {};
  }
  if (to.query.find(';') != std::string::npos) {
    return "the query holds ';', at which some servers split it; in a value it is written %3B";
  }
  const auto query = ParseQuery(to.query);
  for (const auto& [name, value] : query.ok() ? *query : decltype(query)::value_type()) {
    if (name.find(';') != std::string::npos) {
      return "the name of a parameter holds ';', at which some servers split it";
    }
  }
  return {};
}

// What a route has against a request of its path and method; empty: nothing.
std::string WhyNot(const EgressRoute& route, const UrlTarget& to, const RequestHead& head) {
  if (route.query.has_value()) {
    const auto query = ParseQuery(to.query);
    std::vector<std::string> seen;
    for (const auto& [name, value] : query.ok() ? *query : decltype(query)::value_type()) {
      const auto known = route.query->find(name);
      if (known == route.query->end()) {
        return fmt::format("the parameter '{}' is not allowed", Printable(name, 40));
      }
      if (!MatchesFreely(known->second, value)) {
        return fmt::format("the parameter '{}' is not of the form '{}'", Printable(name, 40),
                           known->second);
      }
      if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
        return fmt::format("the parameter '{}' comes twice", Printable(name, 40));
      }
      seen.push_back(name);
    }
  }
  for (const auto& [name, pattern] : route.headers) {
    const Header* const header = FindHeader(head.headers, name);
    if (header == nullptr || CountHeaders(head.headers, name) != 1 ||
        !MatchesFreely(pattern, header->value)) {
      return fmt::format("the header '{}' must be of the form '{}'", name, pattern);
    }
    // What Connection names goes no further than this, but for Upgrade, which is written anew.
    if (ListHolds(head.headers, "Connection", name) && !EqualsIgnoreCase(name, "Upgrade")) {
      return fmt::format("the header '{}' must go on, and Connection takes it away", name);
    }
  }
  const absl::StatusOr<Framing> framing = FramingOf(head);
  if (framing.ok() && framing->kind == Framing::Kind::kLength &&
      framing->length > route.max_body_bytes) {
    return fmt::format("the body has {} bytes, more than {}", framing->length,
                       route.max_body_bytes);
  }
  return {};
}

}  // namespace

bool NamesService(const std::string& host) {
  return std::string_view(host).ends_with(kServiceSuffix) || host == kServiceSuffix.substr(1);
}

Verdict Rules::Tunnel(const Asker& asker, const Authority& to) const {
  if (NamesService(to.host)) {
    return Refused("service-tunnel",
                   fmt::format("{} is a service, and those are spoken to in plain http: use "
                               "http://{}/",
                               to.host, to.host));
  }
  return DecideHost(config_, asker, to, /*plain=*/false, "CONNECT");
}

Verdict Rules::PlainHttp(const Asker& asker, const UrlTarget& to, const RequestHead& head) const {
  Verdict verdict = DecideHost(config_, asker, to.authority, /*plain=*/true, head.method);
  if (verdict.allowed) {
    if (std::string why = WhyAmbiguous(to, head); !why.empty()) {
      return Refused(verdict.rule, std::move(why));
    }
  }
  return verdict;
}

Verdict Rules::Service(const Asker& asker, const UrlTarget& to, const RequestHead& head) const {
  const std::string_view name = std::string_view(to.authority.host)
                                    .substr(0, to.authority.host.size() - kServiceSuffix.size());
  const auto service = std::find_if(config_.services.begin(), config_.services.end(),
                                    [&](const EgressService& each) { return each.name == name; });
  if (service == config_.services.end() || to.authority.port != 80) {
    std::vector<std::string> known;
    for (const EgressService& each : config_.services) {
      if (IsFor(each.who, asker)) {
        known.push_back(fmt::format("http://{}.creel/", each.name));
      }
    }
    return Refused(
        "default",
        fmt::format("there is no service at {}:{}{}", Printable(to.authority.host, kShown),
                    to.authority.port,
                    known.empty() ? "" : fmt::format("; there are {}", fmt::join(known, ", "))));
  }
  const std::string rule = fmt::format("service {}", service->name);
  if (!IsFor(service->who, asker)) {
    return NotForYou(rule, asker);
  }
  if (asker.read_only && !service->in_read_only) {
    return ReadOnly(rule);
  }
  if (std::string why = WhyAmbiguous(to, head); !why.empty()) {
    return Refused(rule, std::move(why));
  }
  if (std::string why = WhyAmbiguousQuery(*service, to); !why.empty()) {
    return Refused(rule, std::move(why));
  }
  if (const Header* const upgrade = FindHeader(head.headers, "Upgrade")) {
    if (!EqualsIgnoreCase(upgrade->value, "websocket") ||
        CountHeaders(head.headers, "Upgrade") != 1) {
      return Refused(rule, "only to a websocket can a connection be upgraded");
    }
    if (!service->websocket) {
      return Refused(rule, "the connection may not be upgraded",
                     fmt::format("websocket: true   # in {}", rule));
    }
  }
  Verdict nearest = Refused(
      rule,
      fmt::format("{} {} is not among what it allows", head.method, Printable(to.path, kShown)),
      fmt::format("allow: [{{methods: [{}], path: {}}}]   # in {}", head.method,
                  Printable(to.path, kShown), rule));
  for (const EgressRoute& route : service->allow) {
    const bool method =
        std::find(route.methods.begin(), route.methods.end(), head.method) != route.methods.end();
    if (!method || !Matches(route.path, to.path)) {
      continue;
    }
    std::string why = WhyNot(route, to, head);
    if (why.empty()) {
      return {.allowed = true, .rule = rule, .service = &*service, .route = &route};
    }
    nearest.reason = std::move(why);
    nearest.add.clear();
  }
  return nearest;
}

}  // namespace creel::egress
