#include "supervisor/egress/client_hello.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/supervisor/egress/hello_builder.h"

namespace creel::egress {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the builder's words

using Kind = HelloFacts::Kind;

TEST_SUITE("ClientHello") {
  TEST_CASE("the name is found whole, in pieces and over many records") {
    const std::string grease = Extension(0x0a0a, "x") + Extension(0xfe0d, std::string(200, 'e'));
    for (const size_t record : {1, 7, 100, 16'000}) {
      const std::string bytes =
          Records(Handshake(grease + ServerName("API.Example.org") + grease), record);
      CAPTURE(record);
      for (size_t cut = 0; cut < bytes.size(); ++cut) {
        const auto part = ReadClientHello(std::string_view(bytes).substr(0, cut));
        REQUIRE(part.ok());
        CHECK(part->kind == Kind::kNeedMore);
      }
      const auto whole = ReadClientHello(bytes + "what follows");
      REQUIRE(whole.ok());
      CHECK(whole->kind == Kind::kHello);
      CHECK(whole->server_name == "api.example.org");
    }
  }

  TEST_CASE("a hello without a name has none") {
    for (const std::string& hello : {Hello(""), Hello(Extension(10, "abc"))}) {
      const auto facts = ReadClientHello(hello);
      REQUIRE(facts.ok());
      CHECK(facts->kind == Kind::kHello);
      CHECK(facts->server_name.empty());
    }
  }

  TEST_CASE("what is not TLS is seen from its first bytes") {
    for (const std::string& bytes :
         {std::string("G"), std::string("SSH-2.0-x\r\n"), std::string("\x16\x02"),
          std::string("\x17\x03\x03"), std::string("\x16\x03\x01\x00\x05\x02", 6),
          std::string("\x80\x2e\x01")}) {
      const auto facts = ReadClientHello(bytes);
      REQUIRE(facts.ok());
      CHECK(facts->kind == Kind::kNotTls);
    }
  }

  TEST_CASE("a malformed hello, and one with two names, is an error") {
    const std::string two = Number(0, 1) + Number(1, 2) + "a" + Number(0, 1) + Number(1, 2) + "b";
    for (const std::string& bytes : {
             Hello(ServerName("a.example") + ServerName("b.example")),
             Hello(Extension(0, Number(two.size(), 2) + two)),
             Hello(Extension(0, "")),
             Hello(Extension(0, Number(0, 2))),
             Hello(ServerName("")),
             Hello(ServerName(std::string("a.example\0.evil", 15))),
             Hello(ServerName("a") + "x"),
             Hello(Number(0, 2) + Number(500, 2) + "short"),
             Records(Number(1, 1) + Number(70'000, 3), 4),
             std::string("\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x00", 11),
             std::string("\x16\x03\x01\xff\xff\x01", 6),
         }) {
      CHECK_FALSE(ReadClientHello(bytes).ok());
    }
    // Another record type in between.
    std::string mixed = Records(Handshake(ServerName("a.example")), 20);
    mixed[25] = 23;
    CHECK_FALSE(ReadClientHello(mixed).ok());
  }
}

}  // namespace
}  // namespace creel::egress
