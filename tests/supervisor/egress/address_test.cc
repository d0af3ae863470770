#include "supervisor/egress/address.h"

#include <doctest/doctest.h>

#include <string>

#include "supervisor/egress/dialer.h"

namespace creel::egress {
namespace {

TEST_SUITE("Address") {
  TEST_CASE("what is not of the open Internet is told, in every disguise") {
    for (const char* text : {
             "127.0.0.1",
             "127.255.255.254",
             "0.0.0.0",
             "10.0.0.1",
             "172.16.0.1",
             "172.31.255.255",
             "192.168.1.1",
             "169.254.169.254",
             "168.63.129.16",
             "100.64.0.1",
             "100.100.100.200",
             "192.0.0.1",
             "198.18.0.1",
             "224.0.0.1",
             "255.255.255.255",
             "240.0.0.1",
             "::",
             "::1",
             "::ffff:127.0.0.1",
             "::ffff:10.0.0.1",
             "::ffff:169.254.169.254",
             "::127.0.0.1",
             "64:ff9b::7f00:1",
             "64:ff9b::a9fe:a9fe",
             "2002:7f00:1::",
             "2002:a00:1::1",
             "fe80::1",
             "fc00::1",
             "fd00:ec2::254",
             "ff02::1",
             "fec0::1",
             "2001::1",
             "100::1",
             "64:ff9b:1::1",
             "::ffff:0:127.0.0.1",
         }) {
      CAPTURE(text);
      const auto address = IpAddress::Parse(text);
      REQUIRE(address.has_value());
      CHECK_FALSE(WhyNotPublic(*address).empty());
    }
    for (const char* text : {"1.1.1.1", "8.8.8.8", "172.32.0.1", "172.15.0.1", "100.128.0.1",
                             "192.0.2.1", "203.0.113.5", "2606:4700::1111", "::ffff:8.8.8.8",
                             "64:ff9b::808:808", "2001:db8::1", "2002:808:808::1"}) {
      CAPTURE(text);
      CHECK(WhyNotPublic(*IpAddress::Parse(text)).empty());
    }
  }

  TEST_CASE("networks are compared bit by bit") {
    const auto in = [](const char* address, const char* network) {
      return InNetworks(*IpAddress::Parse(address), {"203.0.113.77", network});
    };
    CHECK(in("10.1.2.3", "10.1.2.0/24"));
    CHECK_FALSE(in("10.1.3.3", "10.1.2.0/24"));
    CHECK(in("10.1.2.3", "10.1.2.3"));
    CHECK(in("10.1.2.129", "10.1.2.128/25"));
    CHECK_FALSE(in("10.1.2.127", "10.1.2.128/25"));
    CHECK(in("::ffff:10.1.2.3", "10.1.2.0/24"));
    CHECK(in("fd00::5", "fd00::/8"));
    CHECK_FALSE(in("10.1.2.3", "fd00::/8"));
    CHECK(in("203.0.113.77", "10.0.0.0/8"));
  }

  TEST_CASE("one bad address among good ones is enough to refuse a name") {
    const Destination to{.host = "a.example", .port = 443};
    const auto check = [&](std::initializer_list<const char*> texts, const Destination& where) {
      std::vector<IpAddress> addresses;
      for (const char* text : texts) {
        addresses.push_back(*IpAddress::Parse(text));
      }
      return CheckAddresses(addresses, where);
    };
    CHECK(check({"203.0.113.5", "203.0.113.6"}, to).ok());
    CHECK(absl::IsPermissionDenied(check({"203.0.113.5", "10.0.0.1"}, to)));
    CHECK(absl::IsPermissionDenied(check({"127.0.0.1"}, to)));
    Destination named = to;
    named.networks = {"10.0.0.0/24"};
    CHECK(check({"203.0.113.5", "10.0.0.1"}, named).ok());
    CHECK_FALSE(check({"10.0.1.1"}, named).ok());
    Destination trusted = to;
    trusted.trusted = true;
    CHECK(check({"127.0.0.1"}, trusted).ok());
  }

  TEST_CASE("an address of this machine is its own, public or not") {
    const auto own = OwnAddresses();
    REQUIRE_FALSE(own.empty());
    for (const IpAddress& address : own) {
      CAPTURE(address.Text());
      CHECK_FALSE(CheckAddresses({address}, {.host = "a.example", .port = 443}).ok());
    }
  }

  TEST_CASE("an address survives the way to a socket and back") {
    for (const char* text : {"203.0.113.5", "2001:db8::1"}) {
      const auto address = IpAddress::Parse(text);
      sockaddr_storage storage{};
      CHECK(address->ToSocket(443, storage) > 0);
      const auto again = IpAddress::From(reinterpret_cast<const sockaddr&>(storage));
      REQUIRE(again.has_value());
      CHECK(*again == *address);
      CHECK(again->Text() == text);
    }
  }
}

}  // namespace
}  // namespace creel::egress
