#include "supervisor/session/pairings.h"

#include <doctest/doctest.h>

#include <chrono>
#include <set>
#include <string>

#include "tests/supervisor/session/desk_world.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kHour{3600};

SenderId Someone(int number) {
  return ParseSender("whatsapp:+1555000" + std::to_string(1000 + number));
}

std::string Ask(DeskWorld& world, const SenderId& sender, const std::string& account = "") {
  const auto code = world.desk->pairings().Request(sender, account, "Name\x1b[31m", kHour, 3);
  REQUIRE(code.ok());
  return *code;
}

TEST_SUITE("Pairings") {
  TEST_CASE("codes are of eight characters that cannot be mistaken for others") {
    std::set<std::string> seen;
    for (int i = 0; i < 1000; ++i) {
      const std::string code = MakePairingCode();
      CHECK(code.size() == 8);
      CHECK(code.find_first_not_of("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") == std::string::npos);
      seen.insert(code);
    }
    CHECK(seen.size() == 1000);
  }

  TEST_CASE("a code comes once, three wait at most on one account, and it lapses") {
    DeskWorld world;
    const std::string first = Ask(world, Someone(1));
    CHECK(first.size() == 8);
    CHECK(Ask(world, Someone(1)).empty());
    CHECK(!Ask(world, Someone(2)).empty());
    CHECK(!Ask(world, Someone(3)).empty());
    CHECK(Ask(world, Someone(4)).empty());
    CHECK(!Ask(world, Someone(4), "second-account").empty());
    world.Restart();
    CHECK(world.desk->pairings().List().waiting.size() == 4);
    CHECK(Ask(world, Someone(4)).empty());
    world.clock.Move(kHour);
    CHECK(world.desk->pairings().List().waiting.empty());
    CHECK(absl::IsNotFound(world.desk->pairings().Approve(first, {}, "friend").status()));
    CHECK(!Ask(world, Someone(4)).empty());
    // What a sender calls themselves is made safe to show.
    CHECK(world.desk->pairings().List().waiting[0].name == "Name\\x1b[31m");
  }

  TEST_CASE("approved until it is revoked, by code as it is typed or by sender") {
    DeskWorld world;
    std::string code = Ask(world, Someone(1));
    for (char& c : code) {
      c = static_cast<char>(std::tolower(c));
    }
    code.insert(4, "-");
    REQUIRE(world.desk->pairings().Approve(code, {}, "friend").ok());
    CHECK(world.desk->pairings().LevelOf(Someone(1)) == "friend");
    CHECK(world.desk->pairings().LevelOf(Someone(2)).empty());
    CHECK(absl::IsNotFound(world.desk->pairings().Approve(code, {}, "friend").status()));
    world.clock.Move(std::chrono::hours(24 * 1000));
    world.Restart();
    CHECK(world.desk->pairings().LevelOf(Someone(1)) == "friend");
    CHECK(*world.desk->pairings().Deny("", Someone(1)) == 1);
    CHECK(world.desk->pairings().LevelOf(Someone(1)).empty());
    world.Restart();
    CHECK(world.desk->pairings().LevelOf(Someone(1)).empty());
    CHECK(absl::IsNotFound(world.desk->pairings().Deny("", Someone(1)).status()));

    Ask(world, Someone(2));
    REQUIRE(world.desk->pairings().Approve("", Someone(2), "friend").ok());
    CHECK(world.desk->pairings().LevelOf(Someone(2)) == "friend");
  }

  TEST_CASE("wrong codes are not tried without end") {
    DeskWorld world;
    const std::string code = Ask(world, Someone(1));
    for (int i = 0; i < 10; ++i) {
      CHECK(absl::IsNotFound(world.desk->pairings().Approve("AAAAAAAA", {}, "friend").status()));
    }
    CHECK(absl::IsResourceExhausted(world.desk->pairings().Approve(code, {}, "friend").status()));
    CHECK(absl::IsResourceExhausted(world.desk->pairings().Deny(code, {}).status()));
    world.clock.Move(std::chrono::seconds(60));
    CHECK(world.desk->pairings().Approve(code, {}, "friend").ok());
  }
}

}  // namespace
}  // namespace creel
