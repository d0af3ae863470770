#include "supervisor/sandbox/dir_tree.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace creel {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/creel-tree-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  std::string path;
};

TEST_SUITE("DirTree") {
  TEST_CASE("a tree is removed, and what its links point at stays") {
    const Folder folder;
    fs::create_directories(folder.path + "/tree/a/b");
    fs::create_directories(folder.path + "/outside");
    std::ofstream(folder.path + "/outside/file") << "kept";
    std::ofstream(folder.path + "/tree/a/file") << "gone";
    fs::create_directory_symlink(folder.path + "/outside", folder.path + "/tree/a/b/link");
    fs::create_symlink(folder.path + "/outside/file", folder.path + "/tree/file");
    REQUIRE(::mkfifo((folder.path + "/tree/fifo").c_str(), 0600) == 0);
    CHECK(RemoveTree(folder.path, "tree").ok());
    CHECK_FALSE(fs::exists(folder.path + "/tree"));
    CHECK(fs::exists(folder.path + "/outside/file"));
    CHECK(RemoveTree(folder.path, "tree").ok());
    CHECK(RemoveTree(folder.path + "/nowhere", "tree").ok());
  }

  TEST_CASE("a link in place of the tree is removed, not followed") {
    const Folder folder;
    fs::create_directories(folder.path + "/outside/inner");
    fs::create_directory_symlink(folder.path + "/outside", folder.path + "/tree");
    CHECK(RemoveTree(folder.path, "tree").ok());
    CHECK_FALSE(fs::is_symlink(folder.path + "/tree"));
    CHECK(fs::exists(folder.path + "/outside/inner"));
  }

  TEST_CASE("a tree that is deeper than descriptors go, with closed directories, is removed") {
    const Folder folder;
    REQUIRE(::mkdir((folder.path + "/tree").c_str(), 0755) == 0);
    int at = ::open((folder.path + "/tree").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int depth = 0; depth < 3000; ++depth) {
      REQUIRE(::mkdirat(at, "down", 0755) == 0);
      const int next = ::openat(at, "down", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      REQUIRE(next >= 0);
      if (depth % 100 == 0) {
        REQUIRE(::fchmod(next, 0700) == 0);
      }
      ::close(at);
      at = next;
    }
    ::close(at);
    const absl::Status removed = RemoveTree(folder.path, "tree");
    CHECK_MESSAGE(removed.ok(), removed.ToString());
    CHECK_FALSE(fs::exists(folder.path + "/tree"));
  }

  TEST_CASE("what is mounted in a tree is left alone") {
    if (::geteuid() != 0) {
      return;
    }
    const Folder folder;
    fs::create_directories(folder.path + "/tree/mounted");
    if (::mount("none", (folder.path + "/tree/mounted").c_str(), "tmpfs", 0, "size=64k") != 0) {
      return;  // root of a container
    }
    std::ofstream(folder.path + "/tree/mounted/file") << "kept";
    CHECK(RemoveTree(folder.path, "tree").code() == absl::StatusCode::kFailedPrecondition);
    CHECK(fs::exists(folder.path + "/tree/mounted/file"));
    CHECK(::umount((folder.path + "/tree/mounted").c_str()) == 0);
  }

  TEST_CASE("directories are made with the mode that was asked for") {
    const Folder folder;
    const mode_t before = ::umask(077);
    CHECK(MakeDirectories(folder.path + "/a/b", 0755).ok());
    ::umask(before);
    CHECK((fs::status(folder.path + "/a/b").permissions() & fs::perms::all) ==
          static_cast<fs::perms>(0755));
    CHECK(MakeDirectories(folder.path + "/a/b", 0700).ok());
    std::ofstream(folder.path + "/file") << "x";
    CHECK_FALSE(MakeDirectories(folder.path + "/file", 0700).ok());
    CHECK_FALSE(MakeDirectories(folder.path + "/file/below", 0700).ok());
  }

  TEST_CASE("the size of a tree counts what is in it, not what links lead to") {
    const Folder folder;
    fs::create_directories(folder.path + "/tree/sub");
    std::ofstream(folder.path + "/big") << std::string(1 << 20, 'x');
    std::ofstream(folder.path + "/tree/sub/file") << std::string(100'000, 'x');
    fs::create_symlink(folder.path + "/big", folder.path + "/tree/link");
    const uint64_t bytes = TreeBytes(folder.path + "/tree", 1000);
    CHECK(bytes >= 100'000);
    CHECK(bytes < 300'000);
    CHECK(TreeBytes(folder.path + "/nowhere", 1000) == 0);
  }

  TEST_CASE("a file is written as a whole and read back") {
    const Folder folder;
    CHECK(WriteWholeFile(folder.path + "/file", "text", 0600).ok());
    CHECK(*ReadWholeFile(folder.path + "/file", 100) == "text");
    CHECK(*ReadWholeFile(folder.path + "/file", 2) == "te");
    CHECK(ReadWholeFile(folder.path + "/none", 2).status().code() == absl::StatusCode::kNotFound);
    fs::create_symlink(folder.path + "/file", folder.path + "/link");
    CHECK_FALSE(ReadWholeFile(folder.path + "/link", 100).ok());
  }
}

}  // namespace
}  // namespace creel
