#include "supervisor/config/web_keys.h"

#include <doctest/doctest.h>

#include <string>

#include "supervisor/config/load_config.h"

namespace creel {
namespace {

std::string Refusal(const std::string& text) {
  const absl::StatusOr<Config> config = ParseConfig(text, "c.yaml");
  return config.ok() ? "accepted" : std::string(config.status().message());
}

bool Says(const std::string& text, const std::string& part) {
  return Refusal(text).find(part) != std::string::npos;
}

TEST_SUITE("WebKeys") {
  TEST_CASE("the page is on loopback, at a port that not everybody can take, by default") {
    const auto config = ParseConfig("", "c.yaml");
    REQUIRE(config.ok());
    const WebConfig web = WebConfigOf(*config);
    CHECK(web.enabled);
    CHECK(web.metrics);
    CHECK(web.listen == "127.0.0.1:773");
    CHECK(web.hosts.empty());
  }

  TEST_CASE("what is written arrives") {
    const auto config = ParseConfig(
        "web: {enabled: false, metrics: false, listen: '[::1]:8773', hosts: ['localhost:1', "
        "creel.example]}\n",
        "c.yaml");
    CAPTURE(std::string(config.status().message()));
    REQUIRE(config.ok());
    const WebConfig web = WebConfigOf(*config);
    CHECK_FALSE(web.enabled);
    CHECK_FALSE(web.metrics);
    CHECK(web.listen == "[::1]:8773");
    CHECK(web.hosts == std::vector<std::string>{"localhost:1", "creel.example"});
    CHECK(SplitListen("[::1]:8773") == std::pair(std::string("::1"), uint16_t{8773}));
    CHECK(SplitListen("127.0.0.1:0") == std::pair(std::string("127.0.0.1"), uint16_t{0}));
  }

  TEST_CASE("a network is a concession, and mistakes are told") {
    CHECK(Says("web: {listen: '0.0.0.0:773'}", "not loopback"));
    CHECK(Says("web: {listen: '[::]:773'}", "not loopback"));
    CHECK(Says("web: {listen: '192.0.2.1:773'}", "page-on-network"));
    CHECK(Refusal("web: {listen: '0.0.0.0:773'}\nconcessions: [page-on-network]") == "accepted");
    CHECK(Refusal("web: {listen: '0.0.0.0:773', enabled: false}") == "accepted");
    CHECK(Refusal("web: {listen: '127.9.9.9:773'}") == "accepted");
    for (const char* listen : {"773", "localhost:773", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000",
                               "127.0.0.1:7x", "::1:773", "[::1]", "[127.0.0.1]:773", ":773"}) {
      CAPTURE(listen);
      CHECK(Says(std::string("web: {listen: '") + listen + "'}", "web.listen"));
    }
    CHECK(Says("web: {hosts: ['Creel.Example']}", "lower case"));
    CHECK(Says("web: {hosts: ['a b']}", "lower case"));
    CHECK(Says("web: {hosts: ['http://x']}", "lower case"));
    CHECK(Says("web: {hosts: ['" + std::string(250, 'x') + "']}", "longer"));
    CHECK(Says("web: {enabled: maybe}", "true or false"));
    CHECK(Says("web: {port: 5}", "not a key"));
  }
}

}  // namespace
}  // namespace creel
