#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace creel::egress::testing {

inline std::string Number(size_t value, size_t bytes) {
  std::string out;
  for (size_t i = bytes; i > 0; --i) {
    out.push_back(static_cast<char>(value >> (8 * (i - 1)) & 0xff));
  }
  return out;
}

inline std::string Extension(uint16_t type, std::string_view content) {
  return Number(type, 2) + Number(content.size(), 2) + std::string(content);
}

inline std::string ServerName(std::string_view name) {
  const std::string entry = Number(0, 1) + Number(name.size(), 2) + std::string(name);
  return Extension(0, Number(entry.size(), 2) + entry);
}

// A ClientHello with these extensions, as one handshake message.
inline std::string Handshake(const std::string& extensions) {
  const std::string body = Number(0x0303, 2) + std::string(32, 'r') + Number(0, 1) + Number(2, 2) +
                           Number(0x1301, 2) + Number(1, 1) + Number(0, 1) +
                           Number(extensions.size(), 2) + extensions;
  return Number(1, 1) + Number(body.size(), 3) + body;
}

// The message in records of so many bytes.
inline std::string Records(std::string_view handshake, size_t piece) {
  std::string out;
  while (!handshake.empty()) {
    const std::string_view part = handshake.substr(0, piece);
    handshake.remove_prefix(part.size());
    out += Number(22, 1) + Number(0x0301, 2) + Number(part.size(), 2) + std::string(part);
  }
  return out;
}

inline std::string Hello(const std::string& extensions) {
  return Records(Handshake(extensions), 16'000);
}

}  // namespace creel::egress::testing
