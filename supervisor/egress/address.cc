#include "supervisor/egress/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace creel::egress {
namespace {

struct Range {
  const char* network;
  unsigned bits;
  std::string_view why;
};

// IANA's special-purpose registries, but for documentation.
constexpr Range kV4[] = {
    {"0.0.0.0", 8, "this network"},
    {"10.0.0.0", 8, "private"},
    {"100.64.0.0", 10, "carrier NAT"},
    {"127.0.0.0", 8, "loopback"},
    {"169.254.0.0", 16, "link-local"},
    {"172.16.0.0", 12, "private"},
    {"168.63.129.16", 32, "a cloud's metadata"},
    {"192.0.0.0", 24, "protocol"},
    {"192.88.99.0", 24, "6to4 relay"},
    {"192.168.0.0", 16, "private"},
    {"198.18.0.0", 15, "benchmarking"},
    {"224.0.0.0", 4, "multicast"},
    {"240.0.0.0", 4, "reserved or broadcast"},
};
constexpr Range kV6[] = {
    {"::", 128, "unspecified"},   {"::1", 128, "loopback"},     {"64:ff9b:1::", 48, "local NAT64"},
    {"100::", 64, "discard"},     {"2001::", 23, "protocol"},   {"fc00::", 7, "private"},
    {"fe80::", 10, "link-local"}, {"fec0::", 10, "site-local"}, {"ff00::", 8, "multicast"},
};

bool SameBits(const uint8_t* a, const uint8_t* b, unsigned bits) {
  const unsigned whole = bits / 8;
  const unsigned rest = bits % 8;
  return std::memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

bool Within(const IpAddress& address, const char* network, unsigned bits) {
  const std::optional<IpAddress> base = IpAddress::Parse(network);
  return base.has_value() && base->v6 == address.v6 &&
         SameBits(address.bytes.data(), base->bytes.data(), bits);
}

// The IPv4 address inside an IPv6 one.
std::optional<IpAddress> Embedded(const IpAddress& address) {
  if (!address.v6) {
    return std::nullopt;
  }
  size_t at = 0;
  if (Within(address, "::ffff:0:0", 96) || Within(address, "64:ff9b::", 96) ||
      Within(address, "::ffff:0:0:0", 96)) {
    at = 12;
  } else if (Within(address, "::", 96) && !Within(address, "::", 127)) {
    at = 12;  // "compatible", long out of use
  } else if (Within(address, "2002::", 16)) {
    at = 2;
  } else {
    return std::nullopt;
  }
  IpAddress v4;
  std::copy_n(address.bytes.begin() + static_cast<ptrdiff_t>(at), 4, v4.bytes.begin());
  return v4;
}

}  // namespace

std::optional<IpAddress> IpAddress::Parse(const std::string& text) {
  IpAddress address;
  if (inet_pton(AF_INET, text.c_str(), address.bytes.data()) == 1) {
    return address;
  }
  address.v6 = true;
  if (inet_pton(AF_INET6, text.c_str(), address.bytes.data()) == 1) {
    return address;
  }
  return std::nullopt;
}

std::optional<IpAddress> IpAddress::From(const sockaddr& address) {
  IpAddress out;
  if (address.sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &address, sizeof v4);
    std::memcpy(out.bytes.data(), &v4.sin_addr, 4);
    return out;
  }
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address, sizeof v6);
    std::memcpy(out.bytes.data(), &v6.sin6_addr, 16);
    out.v6 = true;
    return out;
  }
  return std::nullopt;
}

std::string IpAddress::Text() const {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(v6 ? AF_INET6 : AF_INET, bytes.data(), text, sizeof text);
  return text;
}

socklen_t IpAddress::ToSocket(uint16_t port, sockaddr_storage& out) const {
  std::memset(&out, 0, sizeof out);
  if (v6) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    std::memcpy(&address.sin6_addr, bytes.data(), 16);
    std::memcpy(&out, &address, sizeof address);
    return sizeof address;
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  std::memcpy(&address.sin_addr, bytes.data(), 4);
  std::memcpy(&out, &address, sizeof address);
  return sizeof address;
}

std::string_view WhyNotPublic(const IpAddress& address) {
  if (const std::optional<IpAddress> v4 = Embedded(address)) {
    return WhyNotPublic(*v4);
  }
  if (address.v6) {
    for (const Range& range : kV6) {
      if (Within(address, range.network, range.bits)) {
        return range.why;
      }
    }
    return {};
  }
  for (const Range& range : kV4) {
    if (Within(address, range.network, range.bits)) {
      return range.why;
    }
  }
  return {};
}

bool InNetworks(const IpAddress& address, const std::vector<std::string>& networks) {
  const IpAddress plain = Within(address, "::ffff:0:0", 96) ? *Embedded(address) : address;
  return std::any_of(networks.begin(), networks.end(), [&](const std::string& network) {
    const size_t slash = network.find('/');
    unsigned bits = plain.v6 ? 128 : 32;
    if (slash != std::string::npos) {
      std::from_chars(network.data() + slash + 1, network.data() + network.size(), bits);
    }
    return Within(plain, network.substr(0, slash).c_str(), bits);
  });
}

std::vector<IpAddress> OwnAddresses() {
  std::vector<IpAddress> own;
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) {
    return own;
  }
  for (const ifaddrs* each = first; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr != nullptr) {
      if (const std::optional<IpAddress> address = IpAddress::From(*each->ifa_addr)) {
        own.push_back(*address);
      }
    }
  }
  freeifaddrs(first);
  return own;
}

}  // namespace creel::egress
