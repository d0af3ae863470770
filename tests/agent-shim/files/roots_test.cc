#include "agent-shim/files/roots.h"

#include <dirent.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "agent-shim/files/entries.h"
#include "agent-shim/files/list.h"
#include "agent-shim/files/reader.h"
#include "agent-shim/files/remove.h"
#include "agent-shim/files/writer.h"
#include "tests/agent-shim/files/scratch.h"

namespace creel::shim {
namespace {

absl::StatusOr<std::string> Read(const FileRoots& roots, const std::string& path) {
  v1::ReadFileArgs args;
  args.set_path(path);
  absl::StatusOr<std::vector<v1::FileChunk>> chunks = Drain(ReadFile(roots, args));
  if (!chunks.ok()) {
    return chunks.status();
  }
  std::string content;
  for (const v1::FileChunk& chunk : *chunks) {
    content += chunk.data();
  }
  return content;
}

absl::Status Write(const FileRoots& roots, const std::string& path, std::string_view content) {
  const Cancel cancel;
  v1::WriteFileArgs args;
  args.set_path(path);
  absl::StatusOr<std::unique_ptr<FileWriter>> writer = FileWriter::Open(roots, args, cancel);
  if (!writer.ok()) {
    return writer.status();
  }
  const absl::Status appended = (*writer)->Append(content);
  return appended.ok() ? (*writer)->Commit().status() : appended;
}

TEST_SUITE("FileRoots") {
  TEST_CASE("paths and links that stay within the roots lead where a shell would go") {
    const Scratch scratch;
    std::filesystem::create_directories(scratch.Work("a/b"));
    Put(scratch.Work("a/b/file"), "inner");
    Put(scratch.Second("other"), "second");
    const auto link = [&](const std::string& target, const std::string& name) {
      REQUIRE(symlink(target.c_str(), scratch.Work(name).c_str()) == 0);
    };
    link("a/b/file", "relative");
    link(scratch.Work("a/b/file"), "absolute");
    link(scratch.Work("a"), "dir");
    link("../second/other", "sibling");
    link(scratch.Second(""), "second");
    link("dir/b/../b/file", "updown");
    struct Row {
      std::string path;
      const char* content;
    };
    const Row rows[] = {{"a/b/file", "inner"},
                        {scratch.Work("a/b/file"), "inner"},
                        {"./a//b/./file", "inner"},
                        {"a/b/../b/file", "inner"},
                        {"relative", "inner"},
                        {"absolute", "inner"},
                        {"dir/b/file", "inner"},
                        {"dir/../a/b/file", "inner"},
                        {"updown", "inner"},
                        {"sibling", "second"},
                        {"second/other", "second"},
                        {scratch.Second("other"), "second"},
                        {scratch.Work("../second/other"), "second"},
                        {"../second/other", "second"},
                        {scratch.base() + "/outside/../workspace/a/b/file", "inner"}};
    for (const Row& row : rows) {
      CAPTURE(row.path);
      const absl::StatusOr<std::string> content = Read(scratch.roots(), row.path);
      CHECK_MESSAGE(content.ok(), std::string(content.status().message()));
      CHECK(content.value_or("") == row.content);
    }
  }

  TEST_CASE("what leads outside is refused, however it is put") {
    const Scratch scratch;
    Put(scratch.Outside("secret"), "secret");
    std::filesystem::create_directory(scratch.Work("sub"));
    const auto link = [&](const std::string& target, const std::string& name) {
      REQUIRE(symlink(target.c_str(), scratch.Work(name).c_str()) == 0);
    };
    link(scratch.Outside("secret"), "absolute");
    link("../outside/secret", "relative");
    link("../outside", "dir");
    link("absolute", "twice");
    link("/proc/self/root", "root");
    link("/proc/self/cwd", "cwd");
    link("/proc/1/root" + scratch.Outside("secret"), "magic");
    const std::string paths[] = {"absolute",
                                 "relative",
                                 "dir/secret",
                                 "twice",
                                 "root/etc/passwd",
                                 "root" + scratch.Outside("secret"),
                                 "cwd/x",
                                 "magic",
                                 "../outside/secret",
                                 "sub/../../outside/secret",
                                 "/etc/passwd",
                                 "/",
                                 "/proc/self/root/etc/passwd",
                                 scratch.Outside("secret"),
                                 scratch.base() + "/workspace2/x",
                                 scratch.Work("../outside/secret")};
    for (const std::string& path : paths) {
      CAPTURE(path);
      CHECK(absl::IsPermissionDenied(Read(scratch.roots(), path).status()));
      CHECK(absl::IsPermissionDenied(Write(scratch.roots(), path, "x")));
    }
    CHECK(Get(scratch.Outside("secret")) == "secret");
    CHECK(std::string(Read(scratch.roots(), "dir/secret").status().message())
              .find("leads outside the sandbox's roots") != std::string::npos);
  }

  TEST_CASE("malformed paths and loops have their own errors") {
    const Scratch scratch;
    REQUIRE(symlink("loop2", scratch.Work("loop1").c_str()) == 0);
    REQUIRE(symlink("loop1", scratch.Work("loop2").c_str()) == 0);
    Put(scratch.Work("file"), "x");
    CHECK(absl::IsInvalidArgument(Read(scratch.roots(), "").status()));
    CHECK(absl::IsInvalidArgument(Read(scratch.roots(), std::string("a\0b", 3)).status()));
    CHECK(absl::IsInvalidArgument(Read(scratch.roots(), std::string(5000, 'a')).status()));
    CHECK(absl::IsInvalidArgument(Read(scratch.roots(), std::string(300, 'a')).status()));
    CHECK(absl::IsFailedPrecondition(Read(scratch.roots(), "loop1").status()));
    CHECK(absl::IsFailedPrecondition(Read(scratch.roots(), "file/x").status()));
    CHECK(absl::IsNotFound(Read(scratch.roots(), "nothing").status()));
    CHECK(absl::IsNotFound(Read(scratch.roots(), "no/thing").status()));
    CHECK(absl::IsFailedPrecondition(Read(scratch.roots(), ".").status()));
  }

  TEST_CASE("a directory swapped for a link under running calls leads nowhere") {
    const Scratch scratch;
    std::filesystem::create_directories(scratch.Work("real"));
    std::filesystem::create_directories(scratch.Work("spare"));
    Put(scratch.Work("real/file"), "inside");
    Put(scratch.Work("spare/file"), "inside");
    Put(scratch.Outside("file"), "secret");
    REQUIRE(symlink(scratch.Outside("").c_str(), scratch.Work("link").c_str()) == 0);
    std::atomic<bool> stop = false;
    // "at" is in turn a directory and a link that leads outside.
    std::thread swapper([&] {
      const std::string at = scratch.Work("at");
      while (!stop) {
        rename(scratch.Work("real").c_str(), at.c_str());
        rename(at.c_str(), scratch.Work("real").c_str());
        rename(scratch.Work("link").c_str(), at.c_str());
        rename(at.c_str(), scratch.Work("link").c_str());
      }
    });
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    int reads = 0;
    int secrets = 0;
    while (std::chrono::steady_clock::now() < until) {
      const absl::StatusOr<std::string> content = Read(scratch.roots(), "at/file");
      reads += content.ok() ? 1 : 0;
      secrets += content.ok() && *content != "inside" ? 1 : 0;
      (void)Write(scratch.roots(), "at/file", "inside");
      (void)Write(scratch.roots(), "at/new", "new");
    }
    stop = true;
    swapper.join();
    CHECK(reads > 0);
    CHECK(secrets == 0);
    CHECK(Get(scratch.Outside("file")) == "secret");
    CHECK(!std::filesystem::exists(scratch.Outside("new")));
  }

  TEST_CASE("missing parents are made, but not outside") {
    const Scratch scratch;
    REQUIRE(symlink(scratch.Outside("").c_str(), scratch.Work("out").c_str()) == 0);
    v1::MakeDirectoryArgs args;
    args.set_parents(true);
    args.set_path("x/y/z");
    CHECK(MakeDirectory(scratch.roots(), args).value_or(false));
    CHECK(MakeDirectory(scratch.roots(), args).value_or(true) == false);
    CHECK(std::filesystem::is_directory(scratch.Work("x/y/z")));
    args.set_path("out/y/z");
    CHECK(absl::IsPermissionDenied(MakeDirectory(scratch.roots(), args).status()));
    CHECK(!std::filesystem::exists(scratch.Outside("y")));
    args.set_path("x/y/../new/q");
    CHECK(MakeDirectory(scratch.roots(), args).ok());
    CHECK(std::filesystem::is_directory(scratch.Work("x/new/q")));
    args.set_parents(false);
    CHECK(absl::IsAlreadyExists(MakeDirectory(scratch.roots(), args).status()));
  }
}

}  // namespace
}  // namespace creel::shim
