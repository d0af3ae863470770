#include "agent-shim/files/grep.h"

#include <sys/resource.h>

#include <algorithm>

#include "tests/agent-shim/files/scratch.h"

namespace creel::shim {
namespace {

struct Found {
  std::vector<v1::GrepMatch> matches;
  bool truncated = false;
  uint64_t skipped = 0;
};

absl::StatusOr<Found> Search(const Scratch& scratch, const v1::GrepArgs& args) {
  absl::StatusOr<std::vector<v1::GrepBatch>> batches = Drain(Grep(scratch.roots(), args));
  if (!batches.ok()) {
    return batches.status();
  }
  Found found;
  for (v1::GrepBatch& batch : *batches) {
    for (v1::GrepMatch& match : *batch.mutable_matches()) {
      found.matches.push_back(std::move(match));
    }
  }
  found.truncated = batches->back().truncated();
  found.skipped = batches->back().files_skipped();
  std::stable_sort(found.matches.begin(), found.matches.end(),
                   [](const auto& a, const auto& b) { return a.path() < b.path(); });
  return found;
}

v1::GrepArgs For(const std::string& pattern) {
  v1::GrepArgs args;
  args.set_pattern(pattern);
  return args;
}

// "path:number:line" for matches, with '-' for context.
std::string Shown(const absl::StatusOr<Found>& found) {
  REQUIRE_MESSAGE(found.ok(), std::string(found.status().message()));
  std::string text;
  for (const v1::GrepMatch& match : found->matches) {
    const char* mark = match.is_context() ? "-" : ":";
    text += match.path() + mark + std::to_string(match.line_number()) + mark + match.line() + "\n";
  }
  return text;
}

TEST_SUITE("Grep") {
  TEST_CASE("lines are found with number and file") {
    const Scratch scratch;
    std::filesystem::create_directories(scratch.Work("sub/.git"));
    std::filesystem::create_directories(scratch.Work(".hidden"));
    Put(scratch.Work("a.txt"), "one\ntwo\nThree two\n");
    Put(scratch.Work("sub/b.py"), "two");
    Put(scratch.Work("sub/.git/c"), "two");
    Put(scratch.Work(".hidden/d"), "\n\ntwo\n");
    Put(scratch.Work("binary"), std::string("two\0two", 7));
    REQUIRE(mkfifo(scratch.Work("fifo").c_str(), 0600) == 0);
    REQUIRE(symlink("/etc/passwd", scratch.Work("link").c_str()) == 0);
    const absl::StatusOr<Found> found = Search(scratch, For("two"));
    CHECK(Shown(found) == ".hidden/d:3:two\na.txt:2:two\na.txt:3:Three two\nsub/b.py:1:two\n");
    CHECK(found->skipped == 1);
    v1::GrepArgs args = For("three");
    args.set_ignore_case(true);
    CHECK(Shown(Search(scratch, args)) == "a.txt:3:Three two\n");
    args = For("two");
    args.set_glob("*.py");
    CHECK(Shown(Search(scratch, args)) == "sub/b.py:1:two\n");
    args.set_path("sub/b.py");
    CHECK(Shown(Search(scratch, args)) == "b.py:1:two\n");
    CHECK(Shown(Search(scratch, For("^two$"))) == ".hidden/d:3:two\na.txt:2:two\nsub/b.py:1:two\n");
    CHECK(Shown(Search(scratch, For("e\\s*t"))) == "a.txt:3:Three two\n");
    args = For("t.o");
    args.set_literal(true);
    CHECK(Shown(Search(scratch, args)).empty());
    args = For("two");
    args.set_max_matches(2);
    const absl::StatusOr<Found> cut = Search(scratch, args);
    REQUIRE(cut.ok());
    CHECK(cut->matches.size() == 2);
    CHECK(cut->truncated);
  }

  TEST_CASE("a malformed pattern says what is wrong with it") {
    const Scratch scratch;
    for (const char* pattern : {"(", "a)(b", "[", "*", "", "(?P<x"}) {
      CAPTURE(pattern);
      CHECK(absl::IsInvalidArgument(Search(scratch, For(pattern)).status()));
    }
    CHECK(std::string(Search(scratch, For("(")).status().message()).find("missing )") !=
          std::string::npos);
    v1::GrepArgs args = For("x");
    args.set_glob("[");
    CHECK(absl::IsInvalidArgument(Search(scratch, args).status()));
  }

  TEST_CASE("context is shown once, in order, around each match") {
    const Scratch scratch;
    std::string text;
    for (int i = 1; i <= 12; ++i) {
      text += (i == 4 || i == 6 || i == 12 ? "hit" : "line") + std::to_string(i) + "\n";
    }
    Put(scratch.Work("f"), text);
    v1::GrepArgs args = For("hit");
    args.set_context(2);
    CHECK(Shown(Search(scratch, args)) ==
          "f-2-line2\nf-3-line3\nf:4:hit4\nf-5-line5\nf:6:hit6\nf-7-line7\nf-8-line8\n"
          "f-10-line10\nf-11-line11\nf:12:hit12\n");
  }

  TEST_CASE("context and numbers hold across blocks") {
    const Scratch scratch;
    std::string text;
    std::string expected;
    // Lines of 100 bytes; every 997th is a hit, so some fall at the edges of 256 KiB blocks.
    const auto line = [](int i) {
      std::string content = (i % 997 == 0 ? "hit " : "--- ") + std::to_string(i);
      content.resize(99, '.');
      return content;
    };
    constexpr int kLines = 40'000;
    for (int i = 1; i <= kLines; ++i) {
      text += line(i) + "\n";
    }
    for (int i = 997; i <= kLines; i += 997) {
      for (int j = i - 3; j <= i + 3 && j <= kLines; ++j) {
        const char* mark = j == i ? ":" : "-";
        expected += "f" + std::string(mark) + std::to_string(j) + mark + line(j) + "\n";
      }
    }
    Put(scratch.Work("f"), text);
    v1::GrepArgs args = For("^hit");
    args.set_context(3);
    CHECK(Shown(Search(scratch, args)) == expected);
  }

  TEST_CASE("a line of a gigabyte costs time, not memory") {
    const Scratch scratch;
    // The file system stores it once; a hole would be NULs.
    const std::string block(size_t{1} << 20U, 'x');
    {
      std::ofstream file(scratch.Work("long"));
      file << "before\n";
      for (int i = 0; i < 1024; ++i) {
        file << block << (i == 700 ? "needle" : "");
      }
      file << "\nneedle after\n";
    }
    rusage before{};
    getrusage(RUSAGE_SELF, &before);
    v1::GrepArgs args = For("needle");
    args.set_context(1);
    const absl::StatusOr<Found> found = Search(scratch, args);
    rusage after{};
    getrusage(RUSAGE_SELF, &after);
    REQUIRE(found.ok());
    REQUIRE(found->matches.size() == 3);
    CHECK(found->matches[0].line() == "before");
    CHECK(found->matches[1].line_number() == 2);
    CHECK(found->matches[1].line_truncated());
    CHECK(found->matches[1].line().size() <= 4096);
    CHECK(found->matches[1].line().find("needle") != std::string::npos);
    CHECK(found->matches[2].line() == "needle after");
    CHECK(after.ru_maxrss - before.ru_maxrss < 8 * 1024);
    // Neither the start nor the end of a window is one of the line.
    CHECK(Shown(Search(scratch, For("^x*needle$"))).empty());
    CHECK(Search(scratch, For("^x")).value_or(Found()).matches.size() == 1);
    CHECK(Search(scratch, For("x$")).value_or(Found()).matches.size() == 1);
  }

  TEST_CASE("matches on the seams of windows are found") {
    const Scratch scratch;
    for (const int at : {256 * 1024 - 3, 256 * 1024, 256 * 1024 - 6, 504 * 1024 - 2}) {
      CAPTURE(at);
      Put(scratch.Work("f"), std::string(static_cast<size_t>(at), 'x') + "needle" +
                                 std::string(300'000, 'y') + "\nneedle");
      const absl::StatusOr<Found> found = Search(scratch, For("needle"));
      REQUIRE(found.ok());
      REQUIRE(found->matches.size() == 2);
      CHECK(found->matches[1].line_number() == 2);
    }
  }
}

}  // namespace
}  // namespace creel::shim
