#include "supervisor/egress/rules.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace creel::egress {
namespace {

const Asker kFriend{
    .sandbox = "0123456789abcdef", .session = "agent:main:whatsapp:group:1", .level = "friend"};
const Asker kStranger{
    .sandbox = "0123456789abcdef", .session = "agent:main:whatsapp:group:2", .level = ""};

Rules MakeRules() {
  EgressConfig config;
  config.hosts = {
      {.name = "pypi.org", .who = {.levels = {"friend"}, .sessions = {}}},
      {.name = "*.pypi.org", .ports = {443, 8443}, .who = {.levels = {"friend"}, .sessions = {}}},
      {.name = "deb.example.org",
       .ports = {80},
       .who = {.levels = {"friend"}, .sessions = {}},
       .plain_http = true,
       .in_read_only = true},
      {.name = "only.example.org", .who = {.levels = {}, .sessions = {"agent:*:group:2"}}},
      {.name = "both.example.org", .who = {.levels = {"friend"}, .sessions = {"agent:*:group:9"}}},
      {.name = "nobody.example.org"},
  };
  EgressService service;
  service.name = "gowa";
  service.url = "http://127.0.0.1:3000";
  service.who.levels = {"friend"};
  service.allow = {
      {.path = "/app/devices"},
      {.methods = {"POST"}, .path = "/send/*", .max_body_bytes = 100},
      {.path = "/search",
       .query = std::map<std::string, std::string>{{"q", "*"}, {"limit", "1*"}},
       .headers = {{"x-kind", "a*"}}},
  };
  EgressService plain = service;
  plain.name = "plain";
  plain.allow = {{.path = "/**"}};
  EgressService keyed = plain;
  keyed.name = "keyed";
  keyed.credential.kind = EgressCredential::Kind::kQuery;
  keyed.credential.name = "key";
  config.services = {service, plain, keyed};
  return Rules(config);
}

RequestHead Request(const std::string& method, std::vector<Header> headers = {}) {
  RequestHead head;
  head.method = method;
  head.headers = std::move(headers);
  return head;
}

Verdict Ask(const std::string& url, const RequestHead& head, const Asker& asker = kFriend) {
  static const Rules& rules = *new Rules(MakeRules());
  const auto to = ParseUrlTarget(url);
  REQUIRE(to.ok());
  return NamesService(to->authority.host) ? rules.Service(asker, *to, head)
                                          : rules.PlainHttp(asker, *to, head);
}

TEST_SUITE("EgressRules") {
  TEST_CASE("a tunnel leads where a rule says, for whom it says, and nowhere else") {
    const Rules rules = MakeRules();
    const struct {
      const char* host;
      uint16_t port;
      bool of_friend;
      bool of_stranger;
    } kRows[] = {
        {"pypi.org", 443, true, false},
        {"pypi.org", 80, false, false},
        {"pypi.org", 22, false, false},
        {"files.pypi.org", 443, true, false},
        {"a.b.pypi.org", 8443, true, false},
        {"notpypi.org", 443, false, false},
        {"pypi.org.evil.example", 443, false, false},
        {"deb.example.org", 80, false, false},
        {"only.example.org", 443, false, true},
        {"both.example.org", 443, false, false},
        {"nobody.example.org", 443, false, false},
        {"localhost", 443, false, false},
        {"gowa.creel", 443, false, false},
        {"gowa.creel", 80, false, false},
        {"creel", 80, false, false},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.host);
      CAPTURE(row.port);
      const Verdict of_friend = rules.Tunnel(kFriend, {row.host, row.port});
      CHECK(of_friend.allowed == row.of_friend);
      CHECK((of_friend.host != nullptr) == row.of_friend);
      CHECK(of_friend.reason.empty() == row.of_friend);
      CHECK(rules.Tunnel(kStranger, {row.host, row.port}).allowed == row.of_stranger);
    }
  }

  TEST_CASE("no rules allow nothing") {
    const Rules none{EgressConfig()};
    CHECK_FALSE(none.Tunnel(kFriend, {"pypi.org", 443}).allowed);
    CHECK_FALSE(
        none.PlainHttp(kFriend, *ParseUrlTarget("http://pypi.org/"), Request("GET")).allowed);
    CHECK_FALSE(
        none.Service(kFriend, *ParseUrlTarget("http://gowa.creel/"), Request("GET")).allowed);
  }

  TEST_CASE("plain http needs a rule of its own, and its methods") {
    CHECK(Ask("http://deb.example.org/x", Request("GET")).allowed);
    CHECK_FALSE(Ask("http://deb.example.org/x", Request("POST")).allowed);
    CHECK_FALSE(Ask("http://deb.example.org:8080/x", Request("GET")).allowed);
    CHECK_FALSE(Ask("http://pypi.org/x", Request("GET")).allowed);
    CHECK_FALSE(Ask("http://pypi.org:443/x", Request("GET")).allowed);
    CHECK_FALSE(Ask("http://deb.example.org/../x", Request("GET")).allowed);
    CHECK_FALSE(Ask("http://deb.example.org/x", Request("GET"), kStranger).allowed);
  }

  TEST_CASE("a service takes the requests that are listed") {
    CHECK(Ask("http://gowa.creel/app/devices", Request("GET")).allowed);
    CHECK(Ask("http://gowa.creel/app/devices?x=1", Request("HEAD")).allowed);
    CHECK(Ask("http://gowa.creel/send/message", Request("POST")).allowed);
    CHECK(
        Ask("http://gowa.creel/search?q=a&limit=10", Request("GET", {{"X-Kind", "abc"}})).allowed);
    CHECK(Ask("http://gowa.creel/search?q=a",
              Request("GET", {{"X-Kind", "abc"}, {"Connection", "close, X-Other"}}))
              .allowed);
    const struct {
      const char* url;
      RequestHead head;
    } kRows[] = {
        {"http://gowa.creel/", Request("GET")},
        {"http://gowa.creel/app/devices", Request("POST")},
        {"http://gowa.creel/App/devices", Request("GET")},
        {"http://gowa.creel/app/devices/", Request("GET")},
        {"http://gowa.creel/app//devices", Request("GET")},
        {"http://gowa.creel/x/../app/devices", Request("GET")},
        {"http://gowa.creel/app/%64evices", Request("GET")},
        {"http://gowa.creel/app/devices;x", Request("GET")},
        {"http://gowa.creel/app%2fdevices", Request("GET")},
        {"http://gowa.creel/send/a/b", Request("POST")},
        {"http://gowa.creel/send/message", Request("GET")},
        {"http://gowa.creel/send/message", Request("post")},
        {"http://gowa.creel/send/x", Request("POST", {{"Content-Length", "101"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"X-HTTP-Method-Override", "DELETE"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"x-method-override", "DELETE"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"X-Original-URL", "/admin"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"X-Method", "DELETE"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"X-HTTP-Verb", "DELETE"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"Method-Override", "DELETE"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"X-Forwarded-Method", "DELETE"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"X-Override-URL", "/admin"}})},
        {"http://gowa.creel/app/devices", Request("GET", {{"X-Forwarded-Uri", "/admin"}})},
        {"http://gowa.creel/app/devices?_method=DELETE", Request("GET")},
        {"http://gowa.creel/app/devices", Request("GET", {{"Upgrade", "websocket"}})},
        {"http://gowa.creel:8080/app/devices", Request("GET")},
        {"http://other.creel/app/devices", Request("GET")},
        {"http://x.gowa.creel/app/devices", Request("GET")},
        {"http://gowa.creel/search?q=a&limit=20", Request("GET", {{"X-Kind", "abc"}})},
        {"http://gowa.creel/search?q=a&other=1", Request("GET", {{"X-Kind", "abc"}})},
        {"http://gowa.creel/search?q=a&q=b", Request("GET", {{"X-Kind", "abc"}})},
        {"http://gowa.creel/search?q=a", Request("GET")},
        {"http://gowa.creel/search?q=a", Request("GET", {{"X-Kind", "b"}})},
        {"http://gowa.creel/search?q=a",
         Request("GET", {{"X-Kind", "abc"}, {"Connection", "close, x-kind"}})},
        {"http://gowa.creel/search?q=a",
         Request("GET", {{"X-Kind", "abc"}, {"Connection", "close"}, {"connection", "X-Kind"}})},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.url);
      CAPTURE(row.head.method);
      const Verdict verdict = Ask(row.url, row.head);
      CHECK_FALSE(verdict.allowed);
      CHECK_FALSE(verdict.reason.empty());
      CHECK(verdict.service == nullptr);
    }
    CHECK_FALSE(Ask("http://gowa.creel/app/devices", Request("GET"), kStranger).allowed);
  }

  TEST_CASE("a query that a server could split or name otherwise does not get past a rule") {
    const RequestHead get = Request("GET", {{"X-Kind", "abc"}});
    for (const char* url : {
             "http://gowa.creel/search?q=a;admin=1",
             "http://gowa.creel/search?q=a;limit=99",
             "http://gowa.creel/app/devices?x=1;y=2",
             "http://gowa.creel/search?q%3badmin=1",
             "http://gowa.creel/app/devices?x%3By=1",
             "http://keyed.creel/x?a=1;key=mine",
             "http://keyed.creel/x?a%3bkey=mine",
         }) {
      CAPTURE(url);
      const Verdict verdict = Ask(url, get);
      CHECK_FALSE(verdict.allowed);
      CHECK(verdict.reason.find("';', at which some servers split it") != std::string::npos);
    }
    for (const char* url : {
             "http://gowa.creel/search?q[]=a",
             "http://gowa.creel/search?q%5B%5D=a",
             "http://gowa.creel/search?q[x]=a",
             "http://gowa.creel/search?+q=a",
             "http://gowa.creel/search?Q=a",
             "http://gowa.creel/search?q=a&Q=b",
             "http://gowa.creel/search?q=a&%71=b",
             "http://gowa.creel/search?q=a&&limit=1",
             "http://gowa.creel/search?limit=1&limit=2",
             "http://gowa.creel/search?q=a&=b",
             "http://plain.creel/x?a=1;_method=DELETE",
             "http://plain.creel/x?+_method=DELETE",
             "http://plain.creel/x?.method=DELETE",
             "http://plain.creel/x?_method[]=DELETE",
             "http://plain.creel/x?_METHOD=DELETE",
         }) {
      CAPTURE(url);
      CHECK_FALSE(Ask(url, get).allowed);
    }
    for (const char* url : {
             "http://gowa.creel/search?q=a%3Bb",
             "http://plain.creel/x?a=1;b=2",
             "http://plain.creel/x?a[]=1&method=x",
             "http://keyed.creel/x?a[]=1&b=%3b",
         }) {
      CAPTURE(url);
      CHECK(Ask(url, get).allowed);
    }
  }

  TEST_CASE("read-only mode stops what does not say that it goes on") {
    Asker asker = kFriend;
    asker.read_only = true;
    const Rules rules = MakeRules();
    CHECK(rules.Tunnel(asker, {"pypi.org", 443}).rule == "host pypi.org");
    CHECK_FALSE(rules.Tunnel(asker, {"pypi.org", 443}).allowed);
    CHECK_FALSE(Ask("http://gowa.creel/app/devices", Request("GET"), asker).allowed);
    CHECK(Ask("http://deb.example.org/x", Request("GET"), asker).allowed);
  }

  TEST_CASE("a refusal holds what the operator would add") {
    const Verdict unknown = MakeRules().Tunnel(kStranger, {"x.example.org", 8443});
    CHECK(unknown.rule == "default");
    CHECK(unknown.add ==
          "egress: {hosts: [{name: x.example.org, ports: [8443], levels: [stranger]}]}");
    CHECK(Ask("http://gowa.creel/new", Request("PUT")).add ==
          "allow: [{methods: [PUT], path: /new}]   # in service gowa");
    CHECK(Ask("http://gowa.creel/app//x", Request("GET")).add.empty());
  }
}

}  // namespace
}  // namespace creel::egress
