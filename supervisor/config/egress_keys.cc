#include "supervisor/config/egress_keys.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/config/text.h"
#include "supervisor/config/value_readers.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
// One key of a map below `egress`, and how its value is read.
using Fields = std::vector<std::pair<std::string, std::function<KeyError(const YamlNode&)>>>;

std::string InLine(const YamlNode& node, const std::string& text) {
  return fmt::format("{} (line {})", text, node.line);
}

KeyError ReadFields(const YamlNode& node, const std::string& what, const Fields& fields) {
  std::vector<std::string> names;
  for (const auto& [name, read] : fields) {
    names.push_back(name);
  }
  if (node.kind != YamlNode::Kind::kMap) {
    return InLine(node,
                  fmt::format("{} is a section with the keys {}", what, fmt::join(names, ", ")));
  }
  for (const auto& entry : node.entries) {
    const YamlNode& key = entry.first;
    const YamlNode& value = entry.second;
    const auto field = std::find_if(fields.begin(), fields.end(),
                                    [&](const auto& each) { return each.first == key.text; });
    if (field == fields.end()) {
      const std::string near = Nearest(key.text, names);
      return InLine(key, fmt::format("{} has no key '{}'; {}", what, Printable(key.text, 80),
                                     near.empty() ? fmt::format("known: {}", fmt::join(names, ", "))
                                                  : fmt::format("did you mean '{}'?", near)));
    }
    if (const KeyError error = field->second(value)) {
      return InLine(value, fmt::format("{}: '{}' {}", what, key.text, *error));
    }
  }
  return {};
}

KeyError ReadList(const YamlNode& node, const std::function<KeyError(const YamlNode&)>& item) {
  if (node.kind == YamlNode::Kind::kNull) {
    return {};
  }
  if (node.kind != YamlNode::Kind::kList) {
    return std::string("wants a list, each item beginning with '-'");
  }
  if (node.items.size() > 256) {
    return std::string("has more than 256 items");
  }
  for (const YamlNode& each : node.items) {
    if (KeyError error = item(each)) {
      return error;
    }
  }
  return {};
}

bool IsLabel(std::string_view label) {
  return !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
         std::all_of(label.begin(), label.end(), [](unsigned char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
         });
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c > 0x20 && c < 0x7f &&
           std::string_view("()<>@,;:\\\"/[]?={}").find(static_cast<char>(c)) ==
               std::string_view::npos;
  });
}

std::string Lower(std::string text) {
  for (char& c : text) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return text;
}

KeyError ReadHostName(const YamlNode& node, std::string& out) {
  std::string name;
  if (KeyError error = ReadText(node, name)) {
    return error;
  }
  name = Lower(name);
  std::string_view rest = name;
  const bool wild = rest.starts_with("*.");
  rest.remove_prefix(wild ? 2 : 0);
  size_t labels = 0;
  std::string_view last;
  bool good = name.size() <= 253 && !rest.empty();
  while (good && !rest.empty()) {
    const size_t dot = std::min(rest.find('.'), rest.size());
    last = rest.substr(0, dot);
    good = IsLabel(last) && (dot == rest.size() || dot + 1 < rest.size());
    rest.remove_prefix(std::min(dot + 1, rest.size()));
    ++labels;
  }
  if (!good || last.empty() || std::isdigit(static_cast<unsigned char>(last[0])) != 0) {
    return fmt::format("wants a name such as pypi.org or *.example.org, not '{}'",
                       Printable(name, 80));
  }
  if (labels < 2) {
    return fmt::format("is too wide: '{}'; name at least two labels", Printable(name, 80));
  }
  if (last == "creel") {
    return std::string("must not end in .creel: those names are the services'");
  }
  out = name;
  return {};
}

KeyError ReadMethods(const YamlNode& node, std::vector<std::string>& out) {
  std::vector<std::string> methods;
  if (KeyError error = ReadTextList(node, methods)) {
    return error;
  }
  for (const std::string& method : methods) {
    const bool upper = std::all_of(method.begin(), method.end(),
                                   [](char c) { return (c >= 'A' && c <= 'Z') || c == '-'; });
    if (!upper || method.size() > 32 || method == "CONNECT" || method == "TRACE") {
      return fmt::format("has '{}', which is no method that can be allowed; they are in capitals",
                         Printable(method, 40));
    }
  }
  if (methods.empty()) {
    return std::string("names no method");
  }
  out = std::move(methods);
  return {};
}

KeyError ReadPattern(const YamlNode& node, std::string& out) {
  std::string path;
  if (KeyError error = ReadText(node, path)) {
    return error;
  }
  const bool plain = std::all_of(path.begin(), path.end(), [](unsigned char c) {
    return c > 0x20 && c < 0x7f && c != '%' && c != '?' && c != '#' && c != '\\' && c != ';';
  });
  if (path.empty() || path[0] != '/' || !plain || path.find("//") != std::string::npos ||
      (path + "/").find("/../") != std::string::npos ||
      (path + "/").find("/./") != std::string::npos) {
    return fmt::format("wants a path such as /send/* or /repos/**, not '{}'", Printable(path, 80));
  }
  out = path;
  return {};
}

KeyError ReadPatterns(const YamlNode& node, bool lower, std::map<std::string, std::string>& out) {
  if (node.kind == YamlNode::Kind::kNull) {
    return {};
  }
  if (node.kind != YamlNode::Kind::kMap) {
    return std::string("wants names with patterns, such as {limit: \"*\"}");
  }
  for (const auto& [key, value] : node.entries) {
    std::string pattern;
    if (KeyError error = ReadText(value, pattern)) {
      return error;
    }
    if (lower && !IsToken(key.text)) {
      return fmt::format("has '{}', which is no header's name", Printable(key.text, 80));
    }
    out[lower ? Lower(key.text) : key.text] = pattern;
  }
  return {};
}

KeyError ReadPorts(const YamlNode& node, std::vector<uint16_t>& out) {
  std::vector<uint16_t> ports;
  KeyError error = ReadList(node, [&](const YamlNode& item) -> KeyError {
    uint64_t port = 0;
    if (KeyError wrong = ReadWhole(item, 1, UINT16_MAX, port)) {
      return wrong;
    }
    ports.push_back(static_cast<uint16_t>(port));
    return {};
  });
  if (!error && ports.empty()) {
    return std::string("names no port");
  }
  out = std::move(ports);
  return error;
}

bool IsCidr(const std::string& text) {
  const size_t slash = text.find('/');
  const std::string address = text.substr(0, slash);
  std::array<unsigned char, 16> bytes{};
  const bool v4 = inet_pton(AF_INET, address.c_str(), bytes.data()) == 1;
  const bool v6 = !v4 && inet_pton(AF_INET6, address.c_str(), bytes.data()) == 1;
  if (slash == std::string::npos) {
    return v4 || v6;
  }
  unsigned bits = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + slash + 1, end, bits);
  return (v4 || v6) && error == std::errc() && stop == end && bits <= (v4 ? 32U : 128U);
}

KeyError ReadNetworks(const YamlNode& node, std::vector<std::string>& out) {
  std::vector<std::string> networks;
  if (KeyError error = ReadTextList(node, networks)) {
    return error;
  }
  for (const std::string& network : networks) {
    if (!IsCidr(network)) {
      return fmt::format("wants networks such as 10.1.2.0/24, not '{}'", Printable(network, 80));
    }
  }
  out = std::move(networks);
  return {};
}

KeyError ReadCredential(const YamlNode& node, EgressCredential& out) {
  using Kind = EgressCredential::Kind;
  int kinds = 0;
  const auto kind = [&](Kind which, std::string EgressCredential::*field) {
    return [&, which, field](const YamlNode& value) -> KeyError {
      ++kinds;
      out.kind = which;
      return ReadText(value, out.*field);
    };
  };
  const KeyError error = ReadFields(
      node, "a credential",
      {{"header", kind(Kind::kHeader, &EgressCredential::name)},
       {"query", kind(Kind::kQuery, &EgressCredential::name)},
       {"basic", kind(Kind::kBasic, &EgressCredential::user)},
       {"bearer",
        [&](const YamlNode& value) -> KeyError {
          bool yes = false;
          KeyError wrong = ReadBool(value, yes);
          if (!wrong && yes) {
            ++kinds;
            out.kind = Kind::kBearer;
          }
          return wrong;
        }},
       {"file",
        [&](const YamlNode& value) { return ReadPath(value, /*or_empty=*/false, out.file); }},
       {"env", [&](const YamlNode& value) { return ReadText(value, out.env); }},
       {"command", [&](const YamlNode& value) { return ReadTextList(value, out.command); }},
       {"refresh", [&](const YamlNode& value) {
          milliseconds time{};
          KeyError wrong =
              ReadDuration(value, milliseconds(1000), std::chrono::hours(24 * 365), time);
          out.refresh = std::chrono::duration_cast<std::chrono::seconds>(time);
          return wrong;
        }}});
  if (error) {
    return error;
  }
  const int sources =
      (out.file.empty() ? 0 : 1) + (out.env.empty() ? 0 : 1) + (out.command.empty() ? 0 : 1);
  if (kinds != 1 || sources != 1) {
    return std::string(
        "says how (one of bearer: true, header: NAME, basic: USER, query: NAME) and where from "
        "(one of file, env, command)");
  }
  if (out.kind == Kind::kHeader && !IsToken(out.name)) {
    return fmt::format("has '{}', which is no header's name", Printable(out.name, 80));
  }
  if (out.kind == Kind::kQuery && !IsToken(out.name)) {
    return fmt::format("has '{}', which is no parameter's name", Printable(out.name, 80));
  }
  if (!out.command.empty() && out.command[0][0] != '/') {
    return std::string("must name its command by a path from the root");
  }
  return {};
}

KeyError ReadRoute(const YamlNode& node, std::vector<EgressRoute>& out) {
  EgressRoute route;
  KeyError error = ReadFields(
      node, "an item of 'allow'",
      {{"methods", [&](const YamlNode& value) { return ReadMethods(value, route.methods); }},
       {"path", [&](const YamlNode& value) { return ReadPattern(value, route.path); }},
       {"query",
        [&](const YamlNode& value) {
          return ReadPatterns(value, /*lower=*/false, route.query.emplace());
        }},
       {"headers",
        [&](const YamlNode& value) { return ReadPatterns(value, /*lower=*/true, route.headers); }},
       {"max_body", [&](const YamlNode& value) {
          return ReadSize(value, 0, 1ull << 40, route.max_body_bytes);
        }}});
  if (!error && route.path.empty()) {
    error = InLine(node, "an item of 'allow' needs a path");
  }
  out.push_back(std::move(route));
  return error;
}

bool IsServiceUrl(const std::string& url) {
  if (url.starts_with("unix:///")) {
    return url.size() > 8 && url.size() < 100;
  }
  const size_t scheme = url.starts_with("https://") ? 8 : url.starts_with("http://") ? 7 : 0;
  return scheme != 0 && url.size() > scheme && url[scheme] != '/' &&
         url.find_first_of("@?#\\% \t", scheme) == std::string::npos &&
         url.find("//", scheme) == std::string::npos && url.find("/.", scheme) == std::string::npos;
}

KeyError ReadWho(const std::string& what, const YamlNode& node, const EgressWho& who) {
  return who.levels.empty() && who.sessions.empty()
             ? KeyError(InLine(node,
                               fmt::format("{} says for whom it is: 'levels' or 'sessions'", what)))
             : KeyError();
}

KeyError ReadService(const YamlNode& node, std::vector<EgressService>& out) {
  EgressService service;
  service.line = node.line;
  const auto text = [](std::string& field) {
    return [&field](const YamlNode& value) { return ReadText(value, field); };
  };
  const auto flag = [](bool& field) {
    return [&field](const YamlNode& value) { return ReadBool(value, field); };
  };
  const auto list = [](std::vector<std::string>& field) {
    return [&field](const YamlNode& value) { return ReadTextList(value, field); };
  };
  KeyError error = ReadFields(
      node, "a service",
      {{"name", text(service.name)},
       {"url", text(service.url)},
       {"levels", list(service.who.levels)},
       {"sessions", list(service.who.sessions)},
       {"allow",
        [&](const YamlNode& value) {
          return ReadList(value,
                          [&](const YamlNode& item) { return ReadRoute(item, service.allow); });
        }},
       {"credential",
        [&](const YamlNode& value) { return ReadCredential(value, service.credential); }},
       {"ca", [&](const YamlNode& value) { return ReadPath(value, true, service.ca); }},
       {"max_reply",
        [&](const YamlNode& value) {
          return ReadSize(value, 0, 1ull << 40, service.max_reply_bytes);
        }},
       {"websocket", flag(service.websocket)},
       {"in_read_only", flag(service.in_read_only)}});
  if (error) {
    return error;
  }
  if (!IsLabel(service.name)) {
    return InLine(node, fmt::format("a service needs a name of lower-case letters, digits and "
                                    "'-', not '{}'",
                                    Printable(service.name, 80)));
  }
  const std::string what = fmt::format("service '{}'", service.name);
  if (!IsServiceUrl(service.url)) {
    return InLine(node, fmt::format("{} needs a url such as https://api.example.org/v1, "
                                    "http://127.0.0.1:3000 or unix:///run/x.sock, not '{}'",
                                    what, Printable(service.url, 80)));
  }
  if (service.allow.empty()) {
    return InLine(node, fmt::format("{} allows nothing: add 'allow: [{{path: /…}}]'", what));
  }
  error = ReadWho(what, node, service.who);
  out.push_back(std::move(service));
  return error;
}

KeyError ReadHost(const YamlNode& node, std::vector<EgressHost>& out) {
  EgressHost host;
  host.line = node.line;
  const auto flag = [](bool& field) {
    return [&field](const YamlNode& value) { return ReadBool(value, field); };
  };
  const auto list = [](std::vector<std::string>& field) {
    return [&field](const YamlNode& value) { return ReadTextList(value, field); };
  };
  bool has_methods = false;
  KeyError error = ReadFields(
      node, "a host",
      {{"name", [&](const YamlNode& value) { return ReadHostName(value, host.name); }},
       {"ports", [&](const YamlNode& value) { return ReadPorts(value, host.ports); }},
       {"levels", list(host.who.levels)},
       {"sessions", list(host.who.sessions)},
       {"addresses", [&](const YamlNode& value) { return ReadNetworks(value, host.addresses); }},
       {"plain_http", flag(host.plain_http)},
       {"methods",
        [&](const YamlNode& value) {
          has_methods = true;
          return ReadMethods(value, host.methods);
        }},
       {"no_sni", flag(host.no_sni)},
       {"no_tls", flag(host.no_tls)},
       {"in_read_only", flag(host.in_read_only)}});
  if (error) {
    return error;
  }
  if (host.name.empty()) {
    return InLine(node, "a host needs a name");
  }
  const std::string what = fmt::format("host '{}'", host.name);
  if (has_methods && !host.plain_http) {
    return InLine(node,
                  fmt::format("{}: 'methods' can only be seen with 'plain_http: true'", what));
  }
  if (host.plain_http && (host.no_tls || host.no_sni)) {
    return InLine(node,
                  fmt::format("{}: 'plain_http' does not go with 'no_tls' or 'no_sni'", what));
  }
  error = ReadWho(what, node, host.who);
  out.push_back(std::move(host));
  return error;
}

KeyError ReadResolvers(const YamlNode& node, Config& config) {
  std::vector<std::string> resolvers;
  if (KeyError error = ReadTextList(node, resolvers)) {
    return error;
  }
  for (const std::string& each : resolvers) {
    const size_t colon = each.rfind(':');
    const bool v6 = std::count(each.begin(), each.end(), ':') > 1;
    const std::string address = v6 || colon == std::string::npos ? each : each.substr(0, colon);
    uint16_t port = 53;
    bool good_port = true;
    if (!v6 && colon != std::string::npos) {
      const char* const end = each.data() + each.size();
      const auto [stop, error] = std::from_chars(each.data() + colon + 1, end, port);
      good_port = error == std::errc() && stop == end && port != 0;
    }
    if (!good_port || address.find('/') != std::string::npos || !IsCidr(address)) {
      return fmt::format("wants addresses such as 192.0.2.1 or 192.0.2.1:5353, not '{}'",
                         Printable(each, 80));
    }
  }
  config.egress.resolvers = std::move(resolvers);
  return {};
}

template <typename Field>
std::function<KeyError(const YamlNode&, Config&)> Number(Field field, uint64_t least,
                                                         uint64_t most) {
  return [=](const YamlNode& node, Config& config) {
    uint64_t value = 0;
    KeyError error = ReadWhole(node, least, most, value);
    if (!error) {
      config.egress.limits.*field = static_cast<uint32_t>(value);
    }
    return error;
  };
}

template <typename Field>
std::function<KeyError(const YamlNode&, Config&)> Bytes(Field field, uint64_t least,
                                                        uint64_t most) {
  return [=](const YamlNode& node, Config& config) {
    return ReadSize(node, least, most, config.egress.limits.*field);
  };
}

template <typename Field>
std::function<KeyError(const YamlNode&, Config&)> Time(Field field) {
  return [=](const YamlNode& node, Config& config) {
    return ReadDuration(node, milliseconds(100), std::chrono::hours(24 * 365),
                        config.egress.limits.*field);
  };
}

}  // namespace

std::vector<KeySpec> EgressKeys() {
  return {
      {"egress.services", "list of services", "[]",
       "HTTP APIs that sandboxes reach as `http://NAME.creel/…`, with the credential added "
       "outside. "
       "See docs/egress.md.",
       [](const YamlNode& node, Config& config) {
         std::vector<EgressService> services;
         KeyError error =
             ReadList(node, [&](const YamlNode& item) { return ReadService(item, services); });
         if (!error) {
           config.egress.services = std::move(services);
         }
         return error;
       }},
      {"egress.hosts", "list of hosts", "[]",
       "Names that sandboxes reach through a tunnel. See docs/egress.md.",
       [](const YamlNode& node, Config& config) {
         std::vector<EgressHost> hosts;
         KeyError error =
             ReadList(node, [&](const YamlNode& item) { return ReadHost(item, hosts); });
         if (!error) {
           config.egress.hosts = std::move(hosts);
         }
         return error;
       }},
      {"egress.resolvers", "list of addresses", "[]",
       "DNS servers that the supervisor asks, each with or without a port. Empty: those of the "
       "machine, with its hosts file.",
       ReadResolvers},
      {"egress.limits.connections", "number", "256",
       "Connections of one sandbox at once. 1 to 1024.",
       Number(&EgressLimits::connections, 1, 1024)},
      {"egress.limits.connections_total", "number", "4096",
       "Connections of all sandboxes at once. 1 to 16384.",
       Number(&EgressLimits::connections_total, 1, 16'384)},
      {"egress.limits.requests_per_minute", "number", "1200",
       "Requests and tunnels that one sandbox may begin in a minute.",
       Number(&EgressLimits::requests_per_minute, 1, 10'000'000)},
      {"egress.limits.bytes_per_minute", "size", "1GiB",
       "What one sandbox may send and receive in a minute, in sum; beyond it waits. 64KiB and up.",
       Bytes(&EgressLimits::bytes_per_minute, 64u << 10, 1ull << 50)},
      {"egress.limits.head", "size", "32KiB", "The largest request or reply head. 1KiB to 256KiB.",
       Bytes(&EgressLimits::head_bytes, 1u << 10, 256u << 10)},
      {"egress.limits.head_timeout", "time", "10s",
       "For a request's head, or a tunnel's first bytes, to be complete.",
       Time(&EgressLimits::head_timeout)},
      {"egress.limits.connect_timeout", "time", "10s",
       "For the name to be resolved and the connection made.",
       Time(&EgressLimits::connect_timeout)},
      {"egress.limits.idle_timeout", "time", "5m", "A connection that carries nothing ends.",
       Time(&EgressLimits::idle_timeout)},
      {"egress.limits.total_timeout", "time", "1h", "A request or tunnel ends, whatever it does.",
       Time(&EgressLimits::total_timeout)},
  };
}

KeyError CheckEgress(const Config& config) {
  std::set<std::string> names;
  for (const EgressService& service : config.egress.services) {
    if (!names.insert(service.name).second) {
      return fmt::format("'egress.services' has '{}' twice", service.name);
    }
  }
  for (const EgressHost& host : config.egress.hosts) {
    for (const auto& [wanted, key, concession] :
         {std::tuple<bool, const char*, const char*>{host.no_tls, "no_tls", "egress-no-tls"},
          {host.no_sni, "no_sni", "egress-no-sni"}}) {
      if (wanted && !config.concessions.contains(concession)) {
        return fmt::format(
            "host '{}' has '{}: true' (line {}), so that nobody can see where its tunnels lead; if "
            "that is what you want, add 'concessions: [{}]'",
            host.name, key, host.line, concession);
      }
    }
  }
  return {};
}

}  // namespace creel
