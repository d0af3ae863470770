#pragma once

#include <string>

#include "supervisor/base/status.h"

namespace creel {

// Where the engine is, and how to prove oneself to it.
struct EngineOptions {
  // `unix:///path` or `tcp://host:port`. Empty: $DOCKER_HOST, else unix:///var/run/docker.sock.
  std::string host;
  // PEM files for `tcp://`: the engine's CA, our certificate and its key. All three or none. None,
  // and `host` from $DOCKER_HOST: those of $DOCKER_CERT_PATH, if it is set.
  std::string tls_ca{};
  std::string tls_cert{};
  std::string tls_key{};
};

// The same, checked.
struct EngineAddress {
  std::string display;      // as the operator wrote it
  std::string socket_path;  // of `unix://`, else empty
  std::string base_url;     // "http://localhost", "https://build.example:2376"
  std::string tls_ca{};
  std::string tls_cert{};
  std::string tls_key{};
};

// kInvalidArgument says what is wrong. TCP without TLS is taken for loopback addresses only:
// whoever reaches an engine is root on its host, and so is whoever is on the way there.
absl::StatusOr<EngineAddress> ResolveEngineAddress(const EngineOptions& options);

}  // namespace creel
