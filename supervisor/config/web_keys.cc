#include "supervisor/config/web_keys.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>

#include "supervisor/base/escape.h"
#include "supervisor/config/value_readers.h"

namespace creel {
namespace {

// What an origin keeps of a value.
constexpr size_t kMaxHosts = 240;

KeyError ReadListen(const YamlNode& node, Config& /*config*/) {
  std::string text;
  if (KeyError error = ReadText(node, text)) {
    return error;
  }
  if (!SplitListen(text)) {
    return std::string("wants an address and a port, such as 127.0.0.1:773 or '[::1]:773'");
  }
  return {};
}

KeyError CheckBool(const YamlNode& node, Config& /*config*/) {
  bool ignored = false;
  return ReadBool(node, ignored);
}

// What the file gave a key, as text; nothing if it gave none.
std::optional<std::string> Given(const Config& config, const char* key) {
  const auto found = config.provenance.origins.find(key);
  return found == config.provenance.origins.end() ? std::nullopt
                                                  : std::optional(found->second.value);
}

bool IsHost(const std::string& text) {
  return !text.empty() && text.size() <= 255 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           std::string_view(".-_:[]").find(c) != std::string_view::npos;
  });
}

KeyError ReadHosts(const YamlNode& node, Config& /*config*/) {
  std::vector<std::string> hosts;
  if (KeyError error = ReadTextList(node, hosts)) {
    return error;
  }
  size_t length = 0;
  for (const std::string& host : hosts) {
    length += host.size() + 2;
    if (!IsHost(host)) {
      return fmt::format(
          "has '{}': write names in lower case with their port, as browsers send "
          "them, such as localhost:8773",
          Printable(host, 80));
    }
  }
  if (length > kMaxHosts) {
    return fmt::format("is longer than {} bytes", kMaxHosts);
  }
  return {};
}

bool IsLoopback(const std::string& address) {
  in_addr v4{};
  if (::inet_pton(AF_INET, address.c_str(), &v4) == 1) {
    return (ntohl(v4.s_addr) >> 24) == 127;
  }
  in6_addr v6{};
  return ::inet_pton(AF_INET6, address.c_str(), &v6) == 1 &&
         std::memcmp(&v6, &in6addr_loopback, sizeof(v6)) == 0;
}

}  // namespace

std::optional<std::pair<std::string, uint16_t>> SplitListen(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) {
    return std::nullopt;
  }
  std::string address = listen.substr(0, colon);
  uint16_t port = 0;
  const char* const end = listen.data() + listen.size();
  const auto [rest, error] = std::from_chars(listen.data() + colon + 1, end, port);
  if (error != std::errc() || rest != end) {
    return std::nullopt;
  }
  unsigned char parsed[sizeof(in6_addr)];
  if (address.size() > 2 && address.front() == '[' && address.back() == ']') {
    address = address.substr(1, address.size() - 2);
    if (::inet_pton(AF_INET6, address.c_str(), parsed) != 1) {
      return std::nullopt;
    }
  } else if (::inet_pton(AF_INET, address.c_str(), parsed) != 1) {
    return std::nullopt;
  }
  return std::pair(address, port);
}

std::vector<KeySpec> WebKeys() {
  return {
      {"web.enabled", "true or false", "true",
       "Serve the page for the operator, and the metrics. See docs/page.md.", CheckBool},
      {"web.listen", "address:port", "127.0.0.1:773",
       "Where. Anything else than loopback carries logins over a network in the clear and needs "
       "the "
       "concession `page-on-network`. A port below 1024 is one that no ordinary user can take "
       "while "
       "`creeld` is away.",
       ReadListen},
      {"web.hosts", "list of text", "[]",
       "By what names browsers may reach the page besides that address and `localhost`, with the "
       "port: for a tunnel (`localhost:8773`) or a proxy that does TLS. All others are refused.",
       ReadHosts},
      {"web.metrics", "true or false", "true",
       "Serve `/metrics` for Prometheus beside the page; whoever reaches the port can read it. See "
       "docs/metrics.md.",
       CheckBool},
  };
}

// The section has no fields in Config: what was given stands, checked, among the origins.
WebConfig WebConfigOf(const Config& config) {
  WebConfig web;
  web.enabled = Given(config, "web.enabled").value_or("true") == "true";
  web.metrics = Given(config, "web.metrics").value_or("true") == "true";
  web.listen = Given(config, "web.listen").value_or(web.listen);
  std::string hosts = Given(config, "web.hosts").value_or("[]");
  std::erase_if(hosts, [](char c) { return c == ' '; });
  std::string_view rest = hosts;
  rest = rest.size() > 2 ? rest.substr(1, rest.size() - 2) : std::string_view();
  while (!rest.empty()) {
    const std::string_view host = rest.substr(0, rest.find(','));
    web.hosts.emplace_back(host);
    rest.remove_prefix(std::min(rest.size(), host.size() + 1));
  }
  return web;
}

KeyError CheckWeb(const Config& config) {
  const WebConfig web = WebConfigOf(config);
  const auto place = SplitListen(web.listen);
  if (web.enabled && place && !IsLoopback(place->first) &&
      !config.concessions.contains("page-on-network")) {
    return fmt::format(
        "'web.listen: {}' is not loopback: logins would cross a network in the "
        "clear; use a tunnel, or add 'concessions: [page-on-network]'",
        web.listen);
  }
  return {};
}

}  // namespace creel
