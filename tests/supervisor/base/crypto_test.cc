#include "supervisor/base/crypto.h"

#include <doctest/doctest.h>

#include <string>

namespace creel {
namespace {

TEST_SUITE("Crypto") {
  TEST_CASE("SHA-256 gives the digest of FIPS 180-2's example") {
    Sha256 hash;
    hash.Update("a");
    hash.Update("bc");
    CHECK(Hex(hash.Finish()) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  }

  TEST_CASE("HMAC-SHA256 gives the values of RFC 4231") {
    CHECK(Hex(HmacSha256("Jefe", "what do ya want for nothing?")) ==
          "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    // A key longer than a block is hashed first.
    CHECK(Hex(HmacSha256(std::string(131, '\xaa'),
                         "Test Using Larger Than Block-Size Key - Hash Key First")) ==
          "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  }

  TEST_CASE("strings that differ in one bit are not equal") {
    CHECK(ConstantTimeEqual("same", "same"));
    CHECK_FALSE(ConstantTimeEqual("same", "sama"));
    CHECK_FALSE(ConstantTimeEqual("same", "sam"));
  }

  TEST_CASE("two draws of random bytes differ") {
    CHECK(RandomBytes(32).size() == 32);
    CHECK(RandomBytes(32) != RandomBytes(32));
  }
}

}  // namespace
}  // namespace creel
