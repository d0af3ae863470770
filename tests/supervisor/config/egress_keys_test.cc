#include "supervisor/config/egress_keys.h"

#include <doctest/doctest.h>

#include <string>

#include "supervisor/config/load_config.h"

namespace creel {
namespace {

std::string Refusal(const std::string& text) {
  const absl::StatusOr<Config> config = ParseConfig(text, "c.yaml");
  return config.ok() ? "accepted" : std::string(config.status().message());
}

std::string Service(const std::string& more) {
  return "egress: {services: [{name: api, url: 'http://127.0.0.1:3000', levels: [friend]" + more +
         "}]}";
}

std::string Host(const std::string& more) {
  return "egress: {hosts: [{levels: [friend], " + more + "}]}";
}

constexpr char kAllow[] = ", allow: [{path: /x}]";

TEST_SUITE("EgressKeys") {
  TEST_CASE("nothing is allowed by default") {
    const auto config = ParseConfig("", "c.yaml");
    REQUIRE(config.ok());
    CHECK_FALSE(config->egress.configured());
  }

  TEST_CASE("services and hosts arrive as they were written") {
    const auto config = ParseConfig(
        "concessions: [egress-no-sni]\n"
        "egress:\n"
        "  resolvers: [192.0.2.1, '192.0.2.2:5353']\n"
        "  limits: {connections: 7, bytes_per_minute: 2MiB, idle_timeout: 90s}\n"
        "  services:\n"
        "    - name: gowa\n"
        "      url: https://gowa.example.org/base\n"
        "      levels: [friend]\n"
        "      sessions: ['agent:*:whatsapp:*']\n"
        "      ca: /etc/ca.pem\n"
        "      credential: {basic: admin, file: /etc/key, refresh: 1m}\n"
        "      allow:\n"
        "        - {path: /devices}\n"
        "        - methods: [POST]\n"
        "          path: /send/**\n"
        "          max_body: 5MiB\n"
        "          query: {to: '49*'}\n"
        "          headers: {Content-Type: 'application/json*'}\n"
        "  hosts:\n"
        "    - {name: PyPI.org, levels: [friend]}\n"
        "    - {name: '*.lan.example', ports: [443, 8443], addresses: [10.0.0.0/8, 'fd00::1'],\n"
        "       no_sni: true, sessions: [x]}\n",
        "c.yaml");
    CAPTURE(std::string(config.status().message()));
    REQUIRE(config.ok());
    const EgressConfig& egress = config->egress;
    CHECK(egress.configured());
    CHECK(egress.limits.connections == 7);
    CHECK(egress.limits.bytes_per_minute == 2u << 20);
    CHECK(egress.limits.idle_timeout == std::chrono::seconds(90));
    CHECK(egress.resolvers.size() == 2);
    const EgressService& service = egress.services.at(0);
    CHECK(service.credential.kind == EgressCredential::Kind::kBasic);
    CHECK(service.credential.user == "admin");
    CHECK(service.credential.refresh == std::chrono::seconds(60));
    CHECK(service.allow.at(0).methods == std::vector<std::string>{"GET", "HEAD"});
    CHECK(service.allow.at(1).max_body_bytes == 5u << 20);
    CHECK(service.allow.at(1).query->at("to") == "49*");
    CHECK(service.allow.at(1).headers.contains("content-type"));
    CHECK(egress.hosts.at(0).name == "pypi.org");
    CHECK(egress.hosts.at(0).ports == std::vector<uint16_t>{443});
    CHECK(egress.hosts.at(1).no_sni);
    CHECK(egress.hosts.at(1).line > egress.hosts.at(0).line);
  }

  TEST_CASE("a rule that says too little, too much or nonsense is refused with its line") {
    CHECK(Refusal(Service(kAllow)) == "accepted");
    CHECK(Refusal(Host("name: a.example")) == "accepted");
    const struct {
      std::string text;
      std::string says;
    } kRows[] = {
        {Service(""), "allows nothing"},
        {Service(", allow: [{methods: [GET]}]"), "needs a path"},
        {Service(", allow: [{path: x}]"), "wants a path"},
        {Service(", allow: [{path: /a/../b}]"), "wants a path"},
        {Service(", allow: [{path: /a//b}]"), "wants a path"},
        {Service(", allow: [{path: /x, methods: [get]}]"), "no method"},
        {Service(", allow: [{path: /x, methods: [CONNECT]}]"), "no method"},
        {Service(", allow: [{path: /x, max_body: lots}]"), "max_body"},
        {Service(", allow: [{path: /x, header: {a: b}}]"), "did you mean 'headers'?"},
        {Service(std::string(kAllow) + ", credential: {bearer: true}"), "where from"},
        {Service(std::string(kAllow) + ", credential: {file: /x}"), "says how"},
        {Service(std::string(kAllow) + ", credential: {bearer: true, basic: u, file: /x}"),
         "says how"},
        {Service(std::string(kAllow) + ", credential: {bearer: true, file: /x, env: Y}"),
         "where from"},
        {Service(std::string(kAllow) + ", credential: {header: 'a b', file: /x}"), "no header"},
        {Service(std::string(kAllow) + ", credential: {bearer: true, command: [ls]}"),
         "from the root"},
        {Service(std::string(kAllow) + ", credential: {bearer: true, value: x}"), "no key 'value'"},
        {"egress: {services: [{name: api, url: 'http://x.example', allow: [{path: /x}]}]}",
         "for whom"},
        {"egress: {services: [{name: A_b, url: 'http://x.example', levels: [a], allow: [{path: "
         "/x}]}]}",
         "needs a name"},
        {"egress: {services: [{name: a, url: 'ftp://x.example', levels: [a], allow: [{path: "
         "/x}]}]}",
         "needs a url"},
        {"egress: {services: [{name: a, url: 'http://u@x.example', levels: [a], allow: [{path: "
         "/x}]}]}",
         "needs a url"},
        {"egress: {services: [{name: a, url: 'http://x.example/a?b', levels: [a], allow: [{path: "
         "/x}]}]}",
         "needs a url"},
        {Host("ports: [443]"), "needs a name"},
        {Host("name: com"), "too wide"},
        {Host("name: '*.com'"), "too wide"},
        {Host("name: '*'"), "wants a name"},
        {Host("name: 'a*.example.org'"), "wants a name"},
        {Host("name: 10.0.0.1"), "wants a name"},
        {Host("name: a..example"), "wants a name"},
        {Host("name: x.creel"), "services"},
        {Host("name: a.example, ports: [0]"), "ports"},
        {Host("name: a.example, ports: []"), "no port"},
        {Host("name: a.example, addresses: [10.0.0.0/33]"), "networks"},
        {Host("name: a.example, methods: [GET]"), "plain_http"},
        {Host("name: a.example, no_tls: true"), "concessions: [egress-no-tls]"},
        {Host("name: a.example, no_sni: true"), "concessions: [egress-no-sni]"},
        {Host("name: a.example, port: 443"), "did you mean 'ports'?"},
        {"egress: {hosts: [{name: a.example}]}", "for whom"},
        {"egress: {hosts: {name: a.example}}", "wants a list"},
        {"egress: {resolvers: [dns.example]}", "wants addresses"},
        {"egress: {resolvers: ['192.0.2.1:notaport']}", "wants addresses"},
        {"egress: {resolvers: ['192.0.2.1:']}", "wants addresses"},
        {"egress: {resolvers: ['192.0.2.1:99999']}", "wants addresses"},
        {"egress: {resolvers: ['192.0.2.1:0']}", "wants addresses"},
        {"egress: {limits: {connections: 0}}", "connections"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text);
      const std::string refusal = Refusal(row.text);
      CAPTURE(refusal);
      CHECK(refusal.find(row.says) != std::string::npos);
      CHECK(refusal.starts_with("c.yaml:1:"));
    }
    const std::string twice = Refusal(
        "egress: {services: [{name: a, url: 'http://x.example', levels: [f], allow: [{path: "
        "/x}]}, {name: a, url: 'http://x.example', levels: [f], allow: [{path: /x}]}]}");
    CHECK(twice.find("'a' twice") != std::string::npos);
  }
}

}  // namespace
}  // namespace creel
