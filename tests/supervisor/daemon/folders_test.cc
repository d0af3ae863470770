#include "supervisor/daemon/folders.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace creel {
namespace {

mode_t ModeOf(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
}

TEST_SUITE("Folders") {
  TEST_CASE("a folder is made with all above it, whatever the umask") {
    char base[] = "/tmp/creel-folders-XXXXXX";
    REQUIRE(::mkdtemp(base) != nullptr);
    const std::string path = std::string(base) + "/a/b/c";
    const mode_t old = ::umask(077);
    CHECK(MakeOwnFolder(path, 0755).ok());
    ::umask(old);
    CHECK(ModeOf(std::string(base) + "/a") == 0755);
    CHECK(ModeOf(path) == 0755);
    CHECK(MakeOwnFolder(path, 0700).ok());
    CHECK(ModeOf(path) == 0700);
    std::filesystem::remove_all(base);
  }
  TEST_CASE("what somebody else could have put there is refused") {
    char base[] = "/tmp/creel-folders-XXXXXX";
    REQUIRE(::mkdtemp(base) != nullptr);
    const std::string dir = base;
    std::filesystem::create_directory_symlink("/tmp", dir + "/link");
    CHECK_FALSE(MakeOwnFolder(dir + "/link", 0755).ok());
    std::ofstream(dir + "/file") << "x";
    CHECK_FALSE(MakeOwnFolder(dir + "/file", 0755).ok());
    std::filesystem::create_directory(dir + "/open");
    ::chmod((dir + "/open").c_str(), 0777);
    CHECK(absl::IsPermissionDenied(MakeOwnFolder(dir + "/open", 0755)));
    if (::geteuid() == 0) {
      std::filesystem::create_directory(dir + "/theirs");
      REQUIRE(::chown((dir + "/theirs").c_str(), 12345, 12345) == 0);
      CHECK(absl::IsPermissionDenied(MakeOwnFolder(dir + "/theirs", 0755)));
    }
    std::filesystem::remove_all(base);
  }
  TEST_CASE("the shim is found where it is said to be, and else the places are named") {
    CHECK(*FindShim("/proc/self/exe") == "/proc/self/exe");
    const absl::Status none = FindShim("/no/such/shim").status();
    CHECK(absl::IsNotFound(none));
    CHECK(std::string(none.message()).find("/no/such/shim") != std::string::npos);
    CHECK(absl::IsNotFound(FindShim("/tmp").status()));
  }
}

}  // namespace
}  // namespace creel
