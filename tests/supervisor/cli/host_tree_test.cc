#include "supervisor/cli/host_tree.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/supervisor/api/gateway_house.h"

using creel::ScratchFolder;
using creel::UniqueFd;
using creel::cli::NewTree;

namespace fs = std::filesystem;

TEST_SUITE("NewTree") {
  TEST_CASE("names that could lead elsewhere are refused") {
    ScratchFolder folder;
    auto tree = NewTree::Begin(folder.path(), "new");
    REQUIRE(tree.ok());
    REQUIRE(tree->MakeDirectory("", 0755).ok());
    for (const std::string path : {"/etc/x", "../x", "a/../../x", "a//b", ".", "..", "a/.", "x/"}) {
      CAPTURE(path);
      CHECK(tree->MakeFile(path, 0644).status().code() == absl::StatusCode::kInvalidArgument);
      CHECK(tree->MakeDirectory(path, 0755).code() == absl::StatusCode::kInvalidArgument);
      CHECK(tree->MakeLink(path, "x").code() == absl::StatusCode::kInvalidArgument);
    }
  }

  TEST_CASE("links that could lead out are left out, others are made last") {
    ScratchFolder folder;
    auto tree = NewTree::Begin(folder.path(), "new");
    REQUIRE(tree.ok());
    REQUIRE(tree->MakeDirectory("", 0755).ok());
    REQUIRE(tree->MakeDirectory("d", 0755).ok());
    REQUIRE(tree->MakeDirectory("d/e", 0755).ok());
    struct Row {
      std::string path;
      std::string target;
      bool made;
    };
    const Row rows[] = {
        {"a", "d/file", true},          {"d/b", "../d/e", true},   {"d/e/c", "../../d", true},
        {"out1", "/etc/passwd", false}, {"out2", "../x", false},   {"d/out3", "../../x", false},
        {"out4", "d/../../x", false},   {"out5", "d/../d", false}, {"out6", "", false},
    };
    uint64_t left_out = 0;
    for (const Row& row : rows) {
      REQUIRE(tree->MakeLink(row.path, row.target).ok());
      left_out += row.made ? 0 : 1;
      CHECK(tree->links_left_out() == left_out);
    }
    REQUIRE(tree->Finish().ok());
    for (const Row& row : rows) {
      CAPTURE(row.path);
      CHECK(fs::is_symlink(folder.path() + "/new/" + row.path) == row.made);
    }
  }

  TEST_CASE("a link never serves as a folder of the copy") {
    ScratchFolder folder;
    ScratchFolder elsewhere;
    auto tree = NewTree::Begin(folder.path(), "new");
    REQUIRE(tree.ok());
    REQUIRE(tree->MakeDirectory("", 0755).ok());
    // Planted from outside while the copy runs.
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      fs::create_directory_symlink(elsewhere.path(), entry.path() / "d");
    }
    CHECK(!tree->MakeFile("d/x", 0644).ok());
    CHECK(fs::is_empty(elsewhere.path()));
  }

  TEST_CASE("no set-id bits; a file is replaced, a folder is not; what is unfinished goes") {
    ScratchFolder folder;
    const std::string place = folder.path() + "/f";
    std::ofstream(place) << "old";
    {
      auto tree = NewTree::Begin(place, "ignored");
      REQUIRE(tree.ok());
      const auto fd = tree->MakeFile("", 06755);
      REQUIRE(fd.ok());
      REQUIRE(write(fd->get(), "new", 3) == 3);
      REQUIRE(tree->Finish().ok());
    }
    struct stat info {};
    REQUIRE(stat(place.c_str(), &info) == 0);
    CHECK((info.st_mode & 07000) == 0);
    std::string text;
    std::ifstream(place) >> text;
    CHECK(text == "new");
    fs::create_directories(folder.path() + "/full/g");
    {
      auto tree = NewTree::Begin(folder.path(), "full");
      REQUIRE(tree.ok());
      REQUIRE(tree->MakeDirectory("", 0755).ok());
      CHECK(tree->Finish().code() == absl::StatusCode::kAlreadyExists);
    }
    CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 2);
  }
}
