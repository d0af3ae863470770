#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>
#include <string>

#include "supervisor/base/unique_fd.h"
#include "tests/supervisor/evidence/bundle_world.h"

namespace creel {
namespace {

// A small bundle with a little of everything.
struct SmallBundle : BundleWorld {
  SmallBundle() {
    const auto writer = Begin();
    REQUIRE(writer->AddText("incident.json", "{}\n").ok());
    REQUIRE(writer->AddText("record.jsonl", std::string(3000, 'r')).ok());
    struct stat info {};
    info.st_mode = S_IFLNK | 0777;
    REQUIRE(writer->AddOther("w/link", info, "/etc/shadow").ok());
    writer->LeftOut("w/socket: a socket");
    const auto finished = writer->Finish();
    REQUIRE(finished.ok());
    CHECK(finished->members == 4);
    CHECK(finished->bytes == std::filesystem::file_size(path));
  }
};

TEST_SUITE("Bundle") {
  TEST_CASE(
      "a file that is larger than the disk's room is cut to it, and what follows is left out") {
    const BundleWorld world;
    const std::string file = world.top + "/large";
    std::ofstream(file) << std::string(300'000, 'x');
    const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info {};
    REQUIRE(::fstat(fd.get(), &info) == 0);
    uint64_t room = 100'000;
    const auto writer = world.Begin(64u << 20, [&] { return room; });
    REQUIRE(writer->AddFile("large", info, fd.get()).ok());
    room = 0;
    REQUIRE(writer->AddText("late.txt", "x").ok());
    const auto finished = writer->Finish();
    REQUIRE(finished.ok());
    auto members = world.Unpack();
    CHECK(members["large"].size == 100'000);
    CHECK(members.count("late.txt") == 0);
    CHECK(finished->left_out.size() >= 2);
    CHECK(world.Verify().sound);
  }

  TEST_CASE("what was written verifies, and any tar can read it") {
    const SmallBundle world;
    const BundleReport report = world.Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
    CHECK(report.members == 4);
    CHECK(report.incident == "7");
    CHECK(report.left_out == std::vector<std::string>{"w/socket: a socket"});
    const auto members = world.Unpack();
    CHECK(members.at("record.jsonl").data == std::string(3000, 'r'));
    CHECK(members.at("w/link").link == "/etc/shadow");
    CHECK(members.contains("manifest.json"));
  }

  TEST_CASE("one flipped bit in any byte fails") {
    const SmallBundle world;
    const std::string good = BundleWorld::Read(world.path);
    REQUIRE(good.size() > 500);
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
      BundleWorld::Write(world.path, bad);
      const BundleReport report = world.Verify();
      CAPTURE(i);
      CHECK_FALSE(report.sound);
      CHECK_FALSE(report.problem.empty());
    }
    BundleWorld::Write(world.path, good);
    CHECK(world.Verify().sound);
  }

  TEST_CASE("what was cut, lengthened or put together anew fails") {
    const SmallBundle world;
    const std::string good = BundleWorld::Read(world.path);
    for (const std::string& bad :
         {good.substr(0, good.size() - 1), good.substr(1), good + "\n", good + good,
          good.substr(0, 100) + good.substr(101), std::string(), std::string("hello")}) {
      BundleWorld::Write(world.path, bad);
      CHECK_FALSE(world.Verify().sound);
    }
  }

  TEST_CASE("another key is not taken") {
    const SmallBundle world;
    const BundleWorld other;
    const auto report = VerifyBundle(world.path, other.key->public_key());
    REQUIRE(report.ok());
    CHECK_FALSE(report->sound);
    CHECK(report->problem.find("key") != std::string::npos);
  }

  TEST_CASE("a bundle that was not finished leaves no file") {
    const BundleWorld world;
    { CHECK(world.Begin()->AddText("a", "b").ok()); }
    CHECK_FALSE(std::filesystem::exists(world.path));
    CHECK_FALSE(std::filesystem::exists(world.path + ".new"));
  }

  TEST_CASE("it takes in no more than it may, and says what is not in it") {
    const BundleWorld world;
    const auto writer = world.Begin(1u << 20);
    for (int i = 0; i < 10; ++i) {
      CHECK(writer->AddText("f" + std::to_string(i), std::string(300u << 10, 'x')).ok());
    }
    const auto finished = writer->Finish();
    REQUIRE(finished.ok());
    CHECK(finished->members < 8);
    CHECK(finished->left_out.size() > 2);
    CHECK(world.Verify().sound);
    CHECK(world.Verify().left_out == finished->left_out);
  }
}

}  // namespace
}  // namespace creel
