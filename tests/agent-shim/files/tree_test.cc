// Listing, copying, moving, removing.
#include <sys/resource.h>

#include <algorithm>
#include <set>

#include "agent-shim/files/copy.h"
#include "agent-shim/files/entries.h"
#include "agent-shim/files/list.h"
#include "agent-shim/files/remove.h"
#include "agent-shim/files/tar_out.h"
#include "tests/agent-shim/files/scratch.h"

namespace creel::shim {
namespace {

namespace fs = std::filesystem;

template <typename Args>
Args At(const std::string& path) {
  Args args;
  args.set_path(path);
  return args;
}

std::set<std::string> Paths(const absl::StatusOr<std::vector<v1::FileBatch>>& batches) {
  REQUIRE_MESSAGE(batches.ok(), std::string(batches.status().message()));
  std::set<std::string> paths;
  for (const v1::FileBatch& batch : *batches) {
    CHECK(batch.entries_size() <= 512);
    for (const v1::FileInfo& info : batch.entries()) {
      CHECK(paths.insert(info.path()).second);
    }
  }
  return paths;
}

std::set<std::string> Globbed(const Scratch& scratch, const std::string& pattern,
                              bool hidden = false) {
  v1::GlobArgs args;
  args.set_pattern(pattern);
  args.set_hidden(hidden);
  return Paths(Drain(Glob(scratch.roots(), args)));
}

absl::StatusOr<Copied> CopyTo(const Scratch& scratch, const std::string& from,
                              const std::string& to, bool recursive, bool no_replace = false) {
  v1::CopyArgs args;
  args.set_source(from);
  args.set_destination(to);
  args.set_recursive(recursive);
  args.set_no_replace(no_replace);
  return Copy(scratch.roots(), args, Cancel());
}

absl::Status MoveTo(const Scratch& scratch, const std::string& from, const std::string& to,
                    bool no_replace = false) {
  v1::MoveArgs args;
  args.set_source(from);
  args.set_destination(to);
  args.set_no_replace(no_replace);
  return Move(scratch.roots(), args, Cancel());
}

absl::StatusOr<uint64_t> RemoveAll(const Scratch& scratch, const std::string& path) {
  auto args = At<v1::RemoveArgs>(path);
  args.set_recursive(true);
  return Remove(scratch.roots(), args, Cancel());
}

// A chain of `levels` directories named "d", deeper than any path can name.
void MakeDeep(const std::string& top, int levels) {
  REQUIRE(mkdir(top.c_str(), 0755) == 0);
  int at = open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 0; i < levels; ++i) {
    REQUIRE(mkdirat(at, "d", 0755) == 0);
    const int next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(next >= 0);
    close(at);
    at = next;
  }
  close(at);
}

TEST_SUITE("ListDirectory") {
  TEST_CASE("a listing tells every entry once, and what it is") {
    const Scratch scratch;
    fs::create_directories(scratch.Work("dir/sub"));
    Put(scratch.Work("dir/file"), "12345");
    REQUIRE(symlink("/etc", scratch.Work("dir/link").c_str()) == 0);
    REQUIRE(mkfifo(scratch.Work("dir/fifo").c_str(), 0600) == 0);
    Put(scratch.Work("dir/sub/deep"), "");
    auto args = At<v1::ListDirectoryArgs>("dir");
    CHECK(Paths(Drain(ListDirectory(scratch.roots(), args))) ==
          std::set<std::string>{"sub", "file", "link", "fifo"});
    args.set_recursive(true);
    absl::StatusOr<std::vector<v1::FileBatch>> all = Drain(ListDirectory(scratch.roots(), args));
    CHECK(Paths(all) == std::set<std::string>{"sub", "file", "link", "fifo", "sub/deep"});
    for (const v1::FileInfo& info : all->front().entries()) {
      if (info.path() == "file") {
        CHECK(info.size() == 5);
        CHECK(info.type() == v1::FILE_TYPE_REGULAR);
      } else if (info.path() == "link") {
        CHECK(info.link_target() == "/etc");
        CHECK(info.type() == v1::FILE_TYPE_SYMLINK);
      } else if (info.path() == "fifo") {
        CHECK(info.type() == v1::FILE_TYPE_OTHER);
      }
    }
    args.set_max_entries(2);
    absl::StatusOr<std::vector<v1::FileBatch>> cut = Drain(ListDirectory(scratch.roots(), args));
    CHECK(Paths(cut).size() == 2);
    CHECK(cut->back().truncated());
    CHECK(absl::IsFailedPrecondition(
        Drain(ListDirectory(scratch.roots(), At<v1::ListDirectoryArgs>("dir/file"))).status()));
  }

  TEST_CASE("100,000 tiny files come in batches, and go again") {
    const Scratch scratch;
    fs::create_directory(scratch.Work("many"));
    const int dir = open(scratch.Work("many").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 100'000; ++i) {
      REQUIRE(mknodat(dir, std::to_string(i).c_str(), S_IFREG | 0644, 0) == 0);
    }
    close(dir);
    auto args = At<v1::ListDirectoryArgs>("many");
    absl::StatusOr<std::vector<v1::FileBatch>> batches =
        Drain(ListDirectory(scratch.roots(), args));
    CHECK(Paths(batches).size() == 100'000);
    CHECK(!batches->back().truncated());
    CHECK(RemoveAll(scratch, "many").value_or(0) == 100'001);
  }
}

TEST_SUITE("deep trees") {
  TEST_CASE("10,000 levels are listed as far as paths go, copied and removed") {
    const Scratch scratch;
    constexpr int kLevels = 10'000;
    MakeDeep(scratch.Work("deep"), kLevels);
    // Neither many descriptors nor a deep stack may be needed.
    rlimit old{};
    getrlimit(RLIMIT_NOFILE, &old);
    const rlimit few{.rlim_cur = 64, .rlim_max = old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    auto args = At<v1::ListDirectoryArgs>("deep");
    args.set_recursive(true);
    absl::StatusOr<std::vector<v1::FileBatch>> batches =
        Drain(ListDirectory(scratch.roots(), args));
    REQUIRE(batches.ok());
    CHECK(batches->back().truncated());
    const absl::StatusOr<Copied> copied = CopyTo(scratch, "deep", "copy", true);
    CHECK_MESSAGE(copied.ok(), std::string(copied.status().message()));
    CHECK(copied.value_or(Copied()).entries == kLevels + 1);
    v1::TarOutArgs tar;
    tar.set_path("deep");
    CHECK(absl::IsFailedPrecondition(Drain(TarOut(scratch.roots(), tar)).status()));
    CHECK(RemoveAll(scratch, "deep").value_or(0) == kLevels + 1);
    CHECK(RemoveAll(scratch, "copy").value_or(0) == kLevels + 1);
    setrlimit(RLIMIT_NOFILE, &old);
  }
}

TEST_SUITE("Glob") {
  TEST_CASE("patterns find what people expect of them") {
    const Scratch scratch;
    for (const char* name : {"a.py", "b.txt", "src/c.py", "src/deep/d.py", ".hidden/e.py",
                             "src/.env", "src/[x].py", "ü.py"}) {
      fs::create_directories(fs::path(scratch.Work(name)).parent_path());
      Put(scratch.Work(name), "");
    }
    using Set = std::set<std::string>;
    CHECK(Globbed(scratch, "*.py") == Set{"a.py", "ü.py"});
    CHECK(Globbed(scratch, "?.py") == Set{"a.py", "ü.py"});
    CHECK(Globbed(scratch, "**/*.py") ==
          Set{"a.py", "ü.py", "src/c.py", "src/deep/d.py", "src/[x].py"});
    CHECK(Globbed(scratch, "src/**") == Set{"src/c.py", "src/deep", "src/deep/d.py", "src/[x].py"});
    CHECK(Globbed(scratch, "src/**/d.py") == Set{"src/deep/d.py"});
    CHECK(Globbed(scratch, "[a-b].*") == Set{"a.py", "b.txt"});
    CHECK(Globbed(scratch, "[!a]*") == Set{"b.txt", "src", "ü.py"});
    CHECK(Globbed(scratch, "src/\\[x\\].py") == Set{"src/[x].py"});
    CHECK(Globbed(scratch, "src/.e*") == Set{"src/.env"});
    CHECK(Globbed(scratch, "**/e.py") == Set{});
    CHECK(Globbed(scratch, "**/e.py", true) == Set{".hidden/e.py"});
    for (const char* malformed : {"", "[", "a[b", "/etc/*", "../*", "x\\", "a/../b"}) {
      CAPTURE(malformed);
      v1::GlobArgs args;
      args.set_pattern(malformed);
      CHECK(absl::IsInvalidArgument(Drain(Glob(scratch.roots(), args)).status()));
    }
  }
}

TEST_SUITE("Copy") {
  TEST_CASE("a tree is copied with links as links and modes kept") {
    const Scratch scratch;
    fs::create_directories(scratch.Work("from/sub"));
    Put(scratch.Work("from/sub/file"), "content");
    chmod(scratch.Work("from/sub/file").c_str(), 0750);
    chmod(scratch.Work("from/sub").c_str(), 0500);
    REQUIRE(symlink("/etc/passwd", scratch.Work("from/link").c_str()) == 0);
    REQUIRE(mkfifo(scratch.Work("from/fifo").c_str(), 0600) == 0);
    const absl::StatusOr<Copied> copied = CopyTo(scratch, "from", "to", true);
    REQUIRE_MESSAGE(copied.ok(), std::string(copied.status().message()));
    CHECK(copied->entries == 4);
    CHECK(copied->bytes == 7);
    CHECK(Get(scratch.Work("to/sub/file")) == "content");
    CHECK(fs::read_symlink(scratch.Work("to/link")) == "/etc/passwd");
    struct stat stat {};
    REQUIRE(lstat(scratch.Work("to/sub/file").c_str(), &stat) == 0);
    CHECK((stat.st_mode & 0777U) == 0750);
    REQUIRE(lstat(scratch.Work("to/sub").c_str(), &stat) == 0);
    CHECK((stat.st_mode & 0777U) == 0500);
    CHECK(absl::IsFailedPrecondition(CopyTo(scratch, "from", "x", false).status()));
    CHECK(absl::IsFailedPrecondition(CopyTo(scratch, "from/fifo", "x", false).status()));
    CHECK(absl::IsAlreadyExists(CopyTo(scratch, "from", "to", true, true).status()));
    chmod(scratch.Work("from/sub").c_str(), 0700);
    chmod(scratch.Work("to/sub").c_str(), 0700);
  }

  TEST_CASE("a directory is not copied into itself, nor a file onto itself") {
    const Scratch scratch;
    fs::create_directories(scratch.Work("a/b"));
    REQUIRE(symlink("a", scratch.Work("alias").c_str()) == 0);
    CHECK(absl::IsFailedPrecondition(CopyTo(scratch, "a", "a/b/c", true).status()));
    CHECK(absl::IsFailedPrecondition(CopyTo(scratch, "a", "alias/b/c", true).status()));
    CHECK(absl::IsFailedPrecondition(CopyTo(scratch, "a", "a", true).status()));
    CHECK(absl::IsFailedPrecondition(CopyTo(scratch, ".", "a/all", true).status()));
    CHECK(!fs::exists(scratch.Work("a/b/c")));
    CHECK(!fs::exists(scratch.Work("a/all")));
    Put(scratch.Work("file"), "x");
    CHECK(absl::IsFailedPrecondition(CopyTo(scratch, "file", "file", false).status()));
    CHECK(Get(scratch.Work("file")) == "x");
  }

  TEST_CASE("a sparse terabyte stays sparse") {
    const Scratch scratch;
    Put(scratch.Work("sparse"), "head");
    REQUIRE(truncate(scratch.Work("sparse").c_str(), off_t{1} << 40) == 0);
    const absl::StatusOr<Copied> copied = CopyTo(scratch, "sparse", "copy", false);
    REQUIRE(copied.ok());
    struct stat stat {};
    REQUIRE(lstat(scratch.Work("copy").c_str(), &stat) == 0);
    CHECK(stat.st_size == off_t{1} << 40);
    CHECK(stat.st_blocks < 1000);
  }
}

TEST_SUITE("Move") {
  TEST_CASE("a move replaces or refuses as asked") {
    const Scratch scratch;
    Put(scratch.Work("a"), "a");
    Put(scratch.Work("b"), "b");
    CHECK(absl::IsAlreadyExists(MoveTo(scratch, "a", "b", true)));
    CHECK(MoveTo(scratch, "a", "c", true).ok());
    CHECK(MoveTo(scratch, "c", "b").ok());
    CHECK(Get(scratch.Work("b")) == "a");
    CHECK(MoveTo(scratch, "b", scratch.Second("b")).ok());
    CHECK(Get(scratch.Second("b")) == "a");
    fs::create_directories(scratch.Work("dir/full"));
    fs::create_directories(scratch.Work("other/full"));
    CHECK(absl::IsFailedPrecondition(MoveTo(scratch, "dir", "other")));
    CHECK(absl::IsFailedPrecondition(MoveTo(scratch, "dir", "dir/full/in")));
    CHECK(absl::IsFailedPrecondition(MoveTo(scratch, ".", "x")));
    CHECK(absl::IsNotFound(MoveTo(scratch, "nothing", "x")));
    CHECK(absl::IsPermissionDenied(MoveTo(scratch, "dir", scratch.Outside("dir"))));
  }

  TEST_CASE("across file systems nothing is lost") {
    if (!fs::exists("/dev/shm")) {
      return;
    }
    const Scratch scratch;
    std::string other = "/dev/shm/creel-files-XXXXXX";
    REQUIRE(mkdtemp(other.data()) != nullptr);
    absl::StatusOr<FileRoots> roots = FileRoots::Open(scratch.Work(""), {other});
    REQUIRE(roots.ok());
    fs::create_directories(scratch.Work("dir/sub"));
    Put(scratch.Work("dir/sub/file"), "content");
    v1::MoveArgs args;
    args.set_source("dir");
    args.set_destination(other + "/dir");
    CHECK(Move(*roots, args, Cancel()).ok());
    CHECK(Get(other + "/dir/sub/file") == "content");
    CHECK(!fs::exists(scratch.Work("dir")));
    fs::create_directory(scratch.Work("odd"));
    REQUIRE(mkfifo(scratch.Work("odd/fifo").c_str(), 0600) == 0);
    args.set_source("odd");
    args.set_destination(other + "/odd");
    CHECK(!Move(*roots, args, Cancel()).ok());
    CHECK(fs::exists(scratch.Work("odd/fifo")));
    fs::remove_all(other);
  }
}

TEST_SUITE("Remove") {
  TEST_CASE("links go, what they point at stays") {
    const Scratch scratch;
    Put(scratch.Outside("keep"), "keep");
    fs::create_directories(scratch.Work("dir/sub"));
    REQUIRE(symlink(scratch.Outside("").c_str(), scratch.Work("dir/out").c_str()) == 0);
    REQUIRE(symlink(scratch.Outside("").c_str(), scratch.Work("out").c_str()) == 0);
    CHECK(absl::IsFailedPrecondition(
        Remove(scratch.roots(), At<v1::RemoveArgs>("dir"), Cancel()).status()));
    CHECK(RemoveAll(scratch, "dir").value_or(0) == 3);
    CHECK(RemoveAll(scratch, "out").value_or(0) == 1);
    CHECK(Get(scratch.Outside("keep")) == "keep");
    CHECK(absl::IsNotFound(RemoveAll(scratch, "dir").status()));
    auto missing = At<v1::RemoveArgs>("dir");
    missing.set_missing_ok(true);
    CHECK(Remove(scratch.roots(), missing, Cancel()).value_or(1) == 0);
  }

  TEST_CASE("a root is never removed") {
    const Scratch scratch;
    Put(scratch.Work("keep"), "");
    fs::create_directory(scratch.Work("sub"));
    for (const std::string& path :
         {std::string("."), std::string("./"), scratch.Work(""), std::string("sub/.."),
          scratch.Second(""), std::string("../second")}) {
      CAPTURE(path);
      CHECK(absl::IsFailedPrecondition(RemoveAll(scratch, path).status()));
    }
    CHECK(fs::exists(scratch.Work("keep")));
    CHECK(fs::exists(scratch.Second("")));
  }
}

}  // namespace
}  // namespace creel::shim
