#include "supervisor/cli/copy_command.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/supervisor/api/doors_house.h"
#include "tests/supervisor/cli/command.h"

using namespace creel;  // NOLINT: a test of one room
namespace fs = std::filesystem;

namespace {

void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

std::string Text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_SUITE("creel cp") {
  TEST_CASE("a file comes out and goes in, with its name, another, or into a folder") {
    DoorsHouse house;
    ScratchFolder host;
    const std::string large(5u << 20, 'l');
    Write(house.files.path() + "/large", large);
    const std::string& run = house.folder.path();
    CHECK(Creel(run, {"cp", "s:/workspace/large", host.path()}).code == 0);
    CHECK(Text(host.path() + "/large") == large);
    CHECK(Creel(run, {"cp", "s:/workspace/large", host.path() + "/other"}).code == 0);
    CHECK(Text(host.path() + "/other") == large);
    CHECK(Creel(run, {"cp", host.path() + "/other", "s:/workspace"}).code == 0);
    CHECK(Text(house.files.path() + "/other") == large);
    CHECK(Creel(run, {"cp", host.path() + "/other", "s:/workspace/third"}).code == 0);
    CHECK(Text(house.files.path() + "/third") == large);
    Write(house.files.path() + "/empty", "");
    CHECK(Creel(run, {"cp", "s:/workspace/empty", host.path()}).code == 0);
    CHECK(fs::file_size(host.path() + "/empty") == 0);
  }

  TEST_CASE("a folder comes out and goes in, links that lead out excepted") {
    DoorsHouse house;
    ScratchFolder host;
    const std::string& run = house.folder.path();
    fs::create_directories(house.files.path() + "/tree/sub/empty");
    Write(house.files.path() + "/tree/a", "a");
    Write(house.files.path() + "/tree/sub/b", "b");
    fs::create_symlink("sub/b", house.files.path() + "/tree/inside");
    CHECK(Creel(run, {"cp", "s:/workspace/tree", host.path() + "/out"}).code == 0);
    CHECK(Text(host.path() + "/out/sub/b") == "b");
    CHECK(Text(host.path() + "/out/inside") == "b");
    CHECK(fs::is_directory(host.path() + "/out/sub/empty"));

    fs::create_symlink("/etc/passwd", house.files.path() + "/tree/outside");
    const CommandResult partly = Creel(run, {"cp", "s:/workspace/tree/", host.path()});
    CHECK(partly.code == 1);
    CHECK(partly.err.find("1 links lead out") != std::string::npos);
    CHECK(Text(host.path() + "/tree/a") == "a");
    CHECK(!fs::is_symlink(host.path() + "/tree/outside"));

    fs::remove(host.path() + "/tree/inside");
    CHECK(Creel(run, {"cp", host.path() + "/tree", "s:/workspace/back"}).code == 0);
    CHECK(Text(house.files.path() + "/back/sub/b") == "b");
  }

  TEST_CASE("what is too large for the host is refused") {
    DoorsHouse house;
    ScratchFolder host;
    Write(house.files.path() + "/sparse", "");
    fs::resize_file(house.files.path() + "/sparse", uint64_t{1} << 40);
    const CommandResult result =
        Creel(house.folder.path(), {"cp", "s:/workspace/sparse", host.path()});
    CHECK(result.code == 1);
    CHECK(result.err.find("--max-size") != std::string::npos);
    CHECK(fs::is_empty(host.path()));
    Write(house.files.path() + "/ten", "0123456789");
    CHECK(Creel(house.folder.path(), {"cp", "--max-size", "9", "s:/workspace/ten", host.path()})
              .code == 1);
    CHECK(Creel(house.folder.path(), {"cp", "--max-size", "1k", "s:/workspace/ten", host.path()})
              .code == 0);
  }

  TEST_CASE("- is a tar stream") {
    DoorsHouse house;
    ScratchFolder host;
    fs::create_directories(house.files.path() + "/tree");
    Write(house.files.path() + "/tree/a", "a");
    const CommandResult out = Creel(house.folder.path(), {"cp", "s:/workspace/tree", "-"});
    CHECK(out.code == 0);
    CHECK(out.out.find("tree/a") != std::string::npos);
    fs::create_directories(house.files.path() + "/in");
    const CommandResult in = Creel(house.folder.path(), {"cp", "-", "s:/workspace/in"}, out.out);
    CHECK(in.code == 0);
    CHECK(Text(house.files.path() + "/in/tree/a") == "a");
  }

  TEST_CASE("what is missing or misused says so") {
    DoorsHouse house;
    ScratchFolder host;
    const std::string& run = house.folder.path();
    CHECK(Creel(run, {"cp", "s:/workspace/none", host.path()}).code == 1);
    CHECK(Creel(run, {"cp", host.path() + "/none", "s:/workspace"}).code == 1);
    CHECK(Creel(run, {"cp", "a", "b"}).code == 2);
    CHECK(Creel(run, {"cp", "s:/a", "t:/b"}).code == 2);
    CHECK(Creel(run, {"cp", "s:/a"}).code == 2);
    CHECK(fs::is_empty(host.path()));
  }
}
