#include "supervisor/egress/target.h"

#include <doctest/doctest.h>

#include <string>

#include "supervisor/base/crypto.h"
#include "supervisor/egress/http_head.h"

namespace creel::egress {
namespace {

TEST_SUITE("Target") {
  TEST_CASE("a name with a port is read, in any case and with a dot at its end") {
    for (const char* text : {"API.example.org:443", "api.example.org.:443"}) {
      const auto authority = ParseAuthority(text, std::nullopt);
      REQUIRE(authority.ok());
      CHECK(authority->host == "api.example.org");
      CHECK(authority->port == 443);
    }
    CHECK(ParseAuthority("a.example", 80)->port == 80);
    CHECK(ParseAuthority("localhost:80", 80).ok());  // a name; where it leads is another question
  }

  TEST_CASE("an IP address is refused in every notation") {
    for (const char* text : {
             "127.0.0.1",
             "127.1",
             "2130706433",
             "0x7f000001",
             "0X7F.1",
             "017700000001",
             "0177.0.0.1",
             "0x7f.0.0.1",
             "127.0.0.0x1",
             "[::1]",
             "[::ffff:127.0.0.1]",
             "::1",
             "[fd00::1]",
             "1",
             "0",
             "127.0.0.1.",
             "169.254.169.254",
             "0xa9fea9fe",
             "1.2.3.4.5",
             "example.1",
             "[::1%25eth0]",
             "[::1",
             "a]",
         }) {
      CAPTURE(text);
      CHECK_FALSE(ParseAuthority(text, 80).ok());
      CHECK_FALSE(ParseAuthority(std::string(text) + ":443", std::nullopt).ok());
    }
  }

  TEST_CASE("what is no authority is refused") {
    for (const char* text : {
             "",
             ":443",
             "a.example:",
             "a.example:0",
             "a.example:65536",
             "a.example:+1",
             "a.example:80:80",
             "a.example:0443",
             "user@a.example:80",
             "user:pass@a.example:80",
             "a..example:80",
             ".example:80",
             "a.example..:80",
             "a example:80",
             "a.example/:80",
             "a%2eexample:80",
             "a.example\\:80",
             "*.example:80",
             "a.\xc3\xa9x:80",
             "a.example:８０",
         }) {
      CAPTURE(text);
      CHECK_FALSE(ParseAuthority(text, std::nullopt).ok());
    }
    CHECK_FALSE(ParseAuthority("a.example", std::nullopt).ok());
    CHECK_FALSE(ParseAuthority(std::string(64, 'a') + ".example", 80).ok());
    CHECK_FALSE(ParseAuthority(std::string(300, 'a'), 80).ok());
  }

  TEST_CASE("a URL is taken apart, and only plain http is one") {
    const auto url = ParseUrlTarget("HTTP://A.example:8080/x/y?a=b?c");
    REQUIRE(url.ok());
    CHECK(url->authority == Authority{"a.example", 8080});
    CHECK(url->path == "/x/y");
    CHECK(url->query == "a=b?c");
    CHECK(ParseUrlTarget("http://a.example")->path == "/");
    CHECK(ParseUrlTarget("http://a.example?q")->path == "/");
    for (const char* text : {"https://a.example/", "ftp://a.example/", "/x", "*", "a.example:80",
                             "http:/a.example/", "http:///x", "http://a.example/#f",
                             "http://u@a.example/", "http://a.example\\@b.example/"}) {
      CAPTURE(text);
      CHECK_FALSE(ParseUrlTarget(text).ok());
    }
  }

  TEST_CASE("a path that two readers could understand differently is refused") {
    for (const char* path : {"/", "/a/b", "/a%20b", "/a.b/..c/c..", "/~x/@y:z", "/a%C3%A9"}) {
      CAPTURE(path);
      CHECK(CheckPath(path).ok());
    }
    for (const char* path : {
             "",       "a",     "//",      "/a//b",     "/a//",    "/./a",     "/a/.",
             "/../a",  "/a/..", "/a/../b", "/%2e%2e/a", "/%2E/a",  "/a%2fb",   "/a%2Fb",
             "/a%5cb", "/a\\b", "/a;b",    "/a%3bb",    "/a%00",   "/a%0d%0a", "/a%7f",
             "/a%",    "/a%2",  "/a%zz",   "/%61dmin",  "/a%252e", "/a b",
         }) {
      CAPTURE(path);
      CHECK_FALSE(CheckPath(path).ok());
    }
    CHECK_FALSE(CheckPath("/" + std::string(10'000, 'a')).ok());
  }

  TEST_CASE("an encoding of what is not UTF-8 is refused") {
    for (const char* path : {
             "/%c0%ae%c0%ae/a",
             "/a%c0%afb",
             "/%c1%9c",  // two bytes for what takes one
             "/%e0%80%af",
             "/%f0%80%80%af",  // three and four
             "/%80",
             "/a%bfb",
             "/%c3%28x",  // a piece that follows nothing
             "/%c3",
             "/%e2%82",
             "/%c3/%a9",  // one that nothing follows
             "/%ed%a0%80",
             "/%ed%b0%80",  // surrogates
             "/%f4%90%80%80",
             "/%f8%88%80%80%80",  // beyond the last character
             "/%fe",
             "/%ff",
         }) {
      CAPTURE(path);
      CHECK_FALSE(CheckPath(path).ok());
    }
    for (const char* path : {"/%C3%BC", "/%e6%bc%a2%e5%ad%97", "/%F0%9F%98%80/x", "/%c2%bd",
                             "/caf%C3%A9%20au%20lait", "/%e3%80%82", "/%e2%80%a6"}) {
      CAPTURE(path);
      CHECK(CheckPath(path).ok());
    }
  }

  TEST_CASE("a character that some reader takes for a separator or a dot is refused") {
    for (const char* each : {
             "\uff0f", "\u2215", "\u2044", "\u29f8", "\u2105", "\uff3c", "\ufe68",
             "\u2216", "\u00a5", "\u20a9", "\uff05", "\ufe6a", "\u066a", "\uff1b",
             "\ufe54", "\u037e", "\uff0e", "\ufe52", "\u2024", "\u2025", "\ufe30",
         }) {
      CAPTURE(each);
      const std::string encoded = PercentEncoded(each);
      CHECK_FALSE(CheckPath("/" + encoded).ok());
      CHECK_FALSE(CheckPath("/a" + encoded + "b/c").ok());
      CHECK_FALSE(CheckPath("/a/" + AsciiLower(encoded)).ok());
    }
  }

  TEST_CASE("patterns: one star stays in a segment, two go anywhere") {
    const struct {
      const char* pattern;
      const char* text;
      bool matches;
    } kRows[] = {
        {"/send/*", "/send/message", true},
        {"/send/*", "/send/", true},
        {"/send/*", "/send/a/b", false},
        {"/send/*", "/Send/a", false},
        {"/send/**", "/send/a/b", true},
        {"/a/*/c", "/a/b/c", true},
        {"/a/*/c", "/a/b/x/c", false},
        {"/a/**/c", "/a/b/x/c", true},
        {"/a", "/a", true},
        {"/a", "/a/", false},
        {"/a", "/ab", false},
        {"/*.json", "/x.json", true},
        {"/*.json", "/x/y.json", false},
        {"**", "/anything/at/all", true},
        {"/a*b*c", "/aXbYc", true},
        {"/a*b*c", "/aXbY", false},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.pattern);
      CAPTURE(row.text);
      CHECK(Matches(row.pattern, row.text) == row.matches);
    }
    CHECK(MatchesFreely("agent:*:whatsapp:*", "agent:main:whatsapp:group:1/2"));
    CHECK_FALSE(MatchesFreely("agent:*:telegram:*", "agent:main:whatsapp:group:1"));
    // As costly as a pattern can be made.
    CHECK_FALSE(Matches("/**a**a**a**a**a**a**a**a**a**b", "/" + std::string(8000, 'a')));
  }

  TEST_CASE("a rule for a name covers it, and one for a suffix all below") {
    CHECK(CoversHost("pypi.org", "pypi.org"));
    CHECK_FALSE(CoversHost("pypi.org", "notpypi.org"));
    CHECK_FALSE(CoversHost("pypi.org", "files.pypi.org"));
    CHECK(CoversHost("*.pypi.org", "files.pypi.org"));
    CHECK(CoversHost("*.pypi.org", "a.b.pypi.org"));
    CHECK_FALSE(CoversHost("*.pypi.org", "pypi.org"));
    CHECK_FALSE(CoversHost("*.pypi.org", "notpypi.org"));
    CHECK_FALSE(CoversHost("*.pypi.org", "pypi.org.evil.example"));
  }

  TEST_CASE("queries are decoded, and encodings written") {
    const auto query = ParseQuery("a=1&b=x%20y+z&c&=d");
    REQUIRE(query.ok());
    REQUIRE(query->size() == 4);
    CHECK((*query)[1] == std::pair<std::string, std::string>("b", "x y z"));
    CHECK_FALSE(ParseQuery("a=%zz").ok());
    CHECK_FALSE(ParseQuery("a=%0d%0aX").ok());
    CHECK(PercentEncoded("a b/ü") == "a%20b%2F%C3%BC");
    CHECK(Base64("user:pass") == "dXNlcjpwYXNz");
    CHECK(Base64("a") == "YQ==");
  }
}

}  // namespace
}  // namespace creel::egress
