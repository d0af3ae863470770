#include "supervisor/egress/resolver.h"

#include <doctest/doctest.h>

#include <future>
#include <memory>
#include <string>

#include "tests/supervisor/egress/dns_server.h"

namespace creel::egress {
namespace {

using testing::DnsServer;

// A resolver on a loop of its own.
struct House {
  explicit House(const std::vector<std::string>& servers) {
    loop = *EventLoop::Start("test");
    loop->Run([&] { resolver = *Resolver::Start(*loop, servers); });
  }
  ~House() {
    loop->Run([&] { resolver.reset(); });
  }
  absl::StatusOr<Resolver::Addresses> Ask(const std::string& name) const {
    auto promise = std::make_shared<std::promise<absl::StatusOr<Resolver::Addresses>>>();
    loop->Post([this, name, promise] {
      resolver->Resolve(name, [promise](const auto& answer) { promise->set_value(answer); });
    });
    return promise->get_future().get();
  }
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<Resolver> resolver;
};

TEST_SUITE("Resolver") {
  TEST_CASE("all addresses of a name are found, behind an alias too") {
    DnsServer dns;
    dns.Set("a.example", {.addresses = {"203.0.113.5", "203.0.113.6"}});
    dns.Set("b.example", {.addresses = {"10.0.0.1"}, .alias = "private.example"});
    const House house({dns.address()});
    CHECK(house.Ask("a.example")->size() == 2);
    const auto alias = house.Ask("b.example");
    REQUIRE(alias.ok());
    CHECK(alias->at(0).Text() == "10.0.0.1");
    CHECK(absl::IsNotFound(house.Ask("none.example").status()));
  }

  TEST_CASE("an answer is kept as long as it says") {
    DnsServer dns;
    dns.Set("kept.example", {.addresses = {"203.0.113.5"}, .ttl = 60});
    dns.Set("gone.example", {.addresses = {"203.0.113.5"}, .ttl = 0});
    const House house({dns.address()});
    for (int i = 0; i < 3; ++i) {
      CHECK(house.Ask("kept.example").ok());
      CHECK(house.Ask("gone.example").ok());
    }
    CHECK(dns.asked("kept.example") == 1);
    CHECK(dns.asked("gone.example") == 3);
  }

  TEST_CASE("no search list is tried, and no hosts file is read") {
    DnsServer dns;
    const House house({dns.address()});
    CHECK(absl::IsNotFound(house.Ask("single").status()));
    CHECK_FALSE(house.Ask("localhost.example").ok());
    CHECK(dns.asked("single") == 1);
  }

  TEST_CASE("a resolver that ends tells those who wait, and a bad address is an error") {
    std::promise<absl::Status> promise;
    {
      // Nobody answers there.
      const House house({"192.0.2.1:5353"});
      house.loop->Run([&] {
        house.resolver->Resolve("a.example",
                                [&](const auto& answer) { promise.set_value(answer.status()); });
      });
    }
    CHECK_FALSE(promise.get_future().get().ok());
    const auto loop = *EventLoop::Start("test");
    loop->Run([&] { CHECK_FALSE(Resolver::Start(*loop, {"not an address"}).ok()); });
  }
}

}  // namespace
}  // namespace creel::egress
