#include "supervisor/engine/engine_address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>
#include <system_error>

namespace creel {
namespace {

constexpr std::string_view kDefaultHost = "unix:///var/run/docker.sock";

std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

bool IsLoopback(const std::string& host) {
  if (host == "localhost") {
    return true;
  }
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    return ntohl(v4.s_addr) >> 24 == 127;
  }
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6) != 0;
}

// A name or address, as no more of a URL than its host can be made of it.
bool IsHost(std::string_view host) {
  return !host.empty() && std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_' || c == ':';
  });
}

bool IsPort(std::string_view text) {
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port > 0 && port < 65536;
}

absl::Status ReadTcp(std::string_view rest, EngineAddress& address) {
  while (rest.ends_with('/')) {
    rest.remove_suffix(1);
  }
  const size_t colon = rest.rfind(':');
  std::string_view host = rest.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.starts_with('[') && host.ends_with(']');
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  if (colon == std::string_view::npos || !IsHost(host) || !IsPort(rest.substr(colon + 1)) ||
      (!bracketed && host.find(':') != std::string_view::npos)) {
    return absl::InvalidArgumentError(
        fmt::format("engine address '{}' is not of the form tcp://host:port", address.display));
  }
  const bool tls = !address.tls_ca.empty();
  if (!tls && !IsLoopback(std::string(host))) {
    return absl::InvalidArgumentError(fmt::format(
        "engine address '{}' needs TLS with a client certificate (tls_ca, tls_cert and tls_key): "
        "without it only a loopback address is taken, as anyone on the way could be root there",
        address.display));
  }
  address.base_url = fmt::format("{}://{}", tls ? "https" : "http", rest);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EngineAddress> ResolveEngineAddress(const EngineOptions& options) {
  EngineAddress address{.display = options.host,
                        .socket_path = "",
                        .base_url = "",
                        .tls_ca = options.tls_ca,
                        .tls_cert = options.tls_cert,
                        .tls_key = options.tls_key};
  const bool no_tls = options.tls_ca.empty() && options.tls_cert.empty() && options.tls_key.empty();
  if (address.display.empty()) {
    address.display = FromEnvironment("DOCKER_HOST");
    const std::string certificates = FromEnvironment("DOCKER_CERT_PATH");
    if (address.display.starts_with("tcp://") && no_tls && !certificates.empty()) {
      address.tls_ca = certificates + "/ca.pem";
      address.tls_cert = certificates + "/cert.pem";
      address.tls_key = certificates + "/key.pem";
    }
  }
  if (address.display.empty()) {
    address.display = kDefaultHost;
  }
  if (!no_tls && (options.tls_ca.empty() || options.tls_cert.empty() || options.tls_key.empty())) {
    return absl::InvalidArgumentError(
        "of tls_ca, tls_cert and tls_key of the engine, give all three or none");
  }
  const std::string_view text = address.display;
  if (text.starts_with("unix://")) {
    address.socket_path = text.substr(7);
    if (!address.socket_path.starts_with('/') ||
        address.socket_path.find('\0') != std::string::npos ||
        address.socket_path.size() >= sizeof(sockaddr_un::sun_path)) {
      return absl::InvalidArgumentError(fmt::format(
          "engine address '{}' is not of the form unix:///path, of at most {} bytes after unix://",
          address.display, sizeof(sockaddr_un::sun_path) - 1));
    }
    if (!no_tls) {
      return absl::InvalidArgumentError(
          fmt::format("engine address '{}' is a Unix socket, where tls_ca, tls_cert and tls_key "
                      "have no meaning",
                      address.display));
    }
    address.base_url = "http://localhost";
    return address;
  }
  if (text.starts_with("tcp://")) {
    RETURN_IF_ERROR(ReadTcp(text.substr(6), address));
    return address;
  }
  return absl::InvalidArgumentError(fmt::format(
      "engine address '{}' is neither unix:///path nor tcp://host:port", address.display));
}

}  // namespace creel
