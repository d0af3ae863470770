#include "supervisor/audit/signing_key.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace creel {
namespace {

struct Folder {
  Folder() {
    char pattern[] = "/tmp/creel-key-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

TEST_SUITE("SigningKey") {
  TEST_CASE("it is made once, for its owner alone, and is the same afterwards") {
    const Folder folder;
    const auto made = SigningKey::LoadOrMake(folder.path);
    REQUIRE(made.ok());
    struct stat info {};
    REQUIRE(::stat((folder.path + "/signing-key.pem").c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
    const auto again = SigningKey::LoadOrMake(folder.path);
    REQUIRE(again.ok());
    CHECK((*again)->public_key() == (*made)->public_key());
    const auto read = ReadPublicKey(folder.path + "/signing-key.pub");
    REQUIRE(read.ok());
    CHECK(*read == (*made)->public_key());
    CHECK(PublicKeyPem(*read).starts_with("-----BEGIN PUBLIC KEY-----"));
    CHECK(KeyId(*read).size() == 16);
  }

  TEST_CASE("a signature fits its message and its key only") {
    const Folder folder;
    const Folder other;
    const auto key = SigningKey::LoadOrMake(folder.path);
    const auto stranger = SigningKey::LoadOrMake(other.path);
    REQUIRE(key.ok());
    REQUIRE(stranger.ok());
    std::string signature = (*key)->Sign("message");
    CHECK(SignatureFits((*key)->public_key(), "message", signature));
    CHECK_FALSE(SignatureFits((*key)->public_key(), "messagf", signature));
    CHECK_FALSE(SignatureFits((*stranger)->public_key(), "message", signature));
    CHECK_FALSE(SignatureFits((*key)->public_key(), "message", signature.substr(1)));
    CHECK_FALSE(SignatureFits("", "message", signature));
    for (size_t i = 0; i < signature.size(); ++i) {
      std::string changed = signature;
      changed[i] = static_cast<char>(changed[i] ^ 1);
      CHECK_FALSE(SignatureFits((*key)->public_key(), "message", changed));
    }
  }

  TEST_CASE("a key that others can read, or that is none, is refused") {
    const Folder folder;
    REQUIRE(SigningKey::LoadOrMake(folder.path).ok());
    const std::string path = folder.path + "/signing-key.pem";
    REQUIRE(::chmod(path.c_str(), 0644) == 0);
    CHECK(absl::IsFailedPrecondition(SigningKey::LoadOrMake(folder.path).status()));
    std::filesystem::remove(path);
    std::ofstream(path) << "not a key\n";
    REQUIRE(::chmod(path.c_str(), 0600) == 0);
    CHECK(absl::IsFailedPrecondition(SigningKey::LoadOrMake(folder.path).status()));
    CHECK(absl::IsInvalidArgument(ReadPublicKey(path).status()));
    CHECK(absl::IsNotFound(ReadPublicKey(folder.path + "/none").status()));
  }
}

}  // namespace
}  // namespace creel
