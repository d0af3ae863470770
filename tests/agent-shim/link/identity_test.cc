#include "agent-shim/link/identity.h"

#include <doctest/doctest.h>

#include <string>

#include "supervisor/base/crypto.h"

namespace creel::shim {
namespace {

v1::HelloRequest First(const std::string& key) {
  v1::HelloRequest request;
  request.set_nonce(std::string(32, 'n'));
  request.set_key(key);
  request.mutable_setup()->set_sandbox_id("box");
  return request;
}

v1::HelloRequest Later(char nonce) {
  v1::HelloRequest request;
  request.set_nonce(std::string(32, nonce));
  return request;
}

}  // namespace

TEST_SUITE("Identity") {
  TEST_CASE("the first Hello gives the key, each proves that the shim has it") {
    Identity identity;
    const std::string key(32, 'k');
    CHECK_FALSE(identity.setup().has_value());
    const auto first = identity.Hello(First(key));
    REQUIRE(first.ok());
    CHECK(first->proof() == HmacSha256(key, "creel-hello-1" + std::string(32, 'n')));
    CHECK(first->sandbox_id() == "box");
    CHECK(first->binary_sha256().empty());
    identity.ReadBinaryHash();
    const auto later = identity.Hello(Later('m'));
    REQUIRE(later.ok());
    CHECK(later->proof() == HmacSha256(key, "creel-hello-1" + std::string(32, 'm')));
    CHECK(later->binary_sha256().size() == 32);
    CHECK(identity.setup()->sandbox_id() == "box");
  }

  TEST_CASE("a key is taken once, and only a whole one with a setup") {
    Identity identity;
    CHECK(absl::IsFailedPrecondition(identity.Hello(Later('n')).status()));
    CHECK(absl::IsInvalidArgument(identity.Hello(First("short")).status()));
    v1::HelloRequest no_setup = First(std::string(32, 'k'));
    no_setup.clear_setup();
    CHECK(absl::IsInvalidArgument(identity.Hello(no_setup).status()));
    v1::HelloRequest short_nonce = First(std::string(32, 'k'));
    short_nonce.set_nonce("n");
    CHECK(absl::IsInvalidArgument(identity.Hello(short_nonce).status()));
    REQUIRE(identity.Hello(First(std::string(32, 'k'))).ok());
    CHECK(absl::IsFailedPrecondition(identity.Hello(First(std::string(32, 'x'))).status()));
  }
}

}  // namespace creel::shim
