#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace creel::egress {

// An IPv4 or IPv6 address.
struct IpAddress {
  bool v6 = false;
  std::array<uint8_t, 16> bytes{};  // the first four for IPv4

  // As inet_pton(3) reads it.
  static std::optional<IpAddress> Parse(const std::string& text);
  static std::optional<IpAddress> From(const sockaddr& address);
  [[nodiscard]] std::string Text() const;
  // For connect(2); returns its length.
  socklen_t ToSocket(uint16_t port, sockaddr_storage& out) const;
  bool operator==(const IpAddress&) const = default;
};

// What keeps an address from being an ordinary one of the Internet, such as "loopback", "private",
// "link-local"; empty: nothing does. An IPv4 address inside an IPv6 one (mapped, compatible, NAT64,
// 6to4) counts as itself. The ranges set aside for documentation lead nowhere and pass.
std::string_view WhyNotPublic(const IpAddress& address);

// Whether it lies in one of `networks` (`10.1.2.0/24`, or a single address). A mapped IPv4 address
// counts as itself.
bool InNetworks(const IpAddress& address, const std::vector<std::string>& networks);

// Addresses of this machine's own interfaces, as they are now.
std::vector<IpAddress> OwnAddresses();

}  // namespace creel::egress
