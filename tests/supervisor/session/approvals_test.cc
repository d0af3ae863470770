#include "supervisor/session/approvals.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "tests/supervisor/session/desk_world.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kTimeout{60};

const ApprovalSubject kSubject{.session = "s",
                               .sender = "whatsapp:1",
                               .tool = "message",
                               .parameters_sha256 = "ab",
                               .tool_call_id = "c1"};

std::string Ask(DeskWorld& world, const ApprovalSubject& subject = kSubject) {
  const auto asked =
      world.desk->approvals().Ask(subject, "friend", "levels.friend.ask", "{}", kTimeout);
  REQUIRE(asked.ok());
  return asked->id;
}

ApprovalAnswer Use(DeskWorld& world, const std::string& id,
                   const ApprovalSubject& subject = kSubject) {
  const auto answer = world.desk->approvals().Use(id, subject);
  REQUIRE(answer.ok());
  return *answer;
}

TEST_SUITE("Approvals") {
  TEST_CASE("an answer is for this session, sender, tool and these parameters, once") {
    DeskWorld world;
    const std::string id = Ask(world);
    CHECK(Ask(world) == id);
    CHECK(Use(world, id) == ApprovalAnswer::kPending);
    REQUIRE(world.desk->approvals().Answer(id, true).ok());
    const auto with = [&](auto change) {
      ApprovalSubject other = kSubject;
      change(other);
      return Use(world, id, other);
    };
    CHECK(with([](ApprovalSubject& s) { s.session = "t"; }) == ApprovalAnswer::kOther);
    CHECK(with([](ApprovalSubject& s) { s.sender = "whatsapp:2"; }) == ApprovalAnswer::kOther);
    CHECK(with([](ApprovalSubject& s) { s.tool = "cron"; }) == ApprovalAnswer::kOther);
    CHECK(with([](ApprovalSubject& s) { s.parameters_sha256 = "cd"; }) == ApprovalAnswer::kOther);
    CHECK(with([](ApprovalSubject& s) { s.tool_call_id = "c2"; }) == ApprovalAnswer::kOther);
    CHECK(Use(world, "nothing") == ApprovalAnswer::kOther);
    world.Restart();
    CHECK(Use(world, id) == ApprovalAnswer::kAllowed);
    CHECK(Use(world, id) == ApprovalAnswer::kDenied);
    world.Restart();
    CHECK(Use(world, id) == ApprovalAnswer::kDenied);
  }

  TEST_CASE("what nobody answers in time is denied, and cannot be allowed later") {
    DeskWorld world;
    const std::string id = Ask(world);
    world.clock.Move(kTimeout);
    CHECK(Use(world, id) == ApprovalAnswer::kExpired);
    CHECK(absl::IsFailedPrecondition(world.desk->approvals().Answer(id, true).status()));
    CHECK(world.desk->approvals().List()[0].state == "expired");
    // The same call asks anew.
    CHECK(Ask(world) != id);
  }

  TEST_CASE("who waits is told of the answer, of the end of the time, and of the end of it all") {
    DeskWorld world;
    std::atomic<int> told{-1};
    const auto wait = [&](const std::string& id) {
      told = -1;
      world.desk->approvals().Wait(id, [&](ApprovalAnswer a) { told = static_cast<int>(a); });
    };
    const auto eventually = [&](ApprovalAnswer answer) {
      for (int i = 0; i < 2000 && told != static_cast<int>(answer); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      return told == static_cast<int>(answer);
    };
    const std::string first = Ask(world);
    wait(first);
    CHECK(told == -1);
    REQUIRE(world.desk->approvals().Answer(first, true).ok());
    CHECK(told == static_cast<int>(ApprovalAnswer::kAllowed));
    CHECK(Use(world, first) == ApprovalAnswer::kDenied);  // used by the one who waited

    const std::string second = Ask(world);
    wait(second);
    REQUIRE(world.desk->approvals().Answer(second, false).ok());
    CHECK(told == static_cast<int>(ApprovalAnswer::kDenied));

    const std::string third = Ask(world);
    wait(third);
    world.clock.Move(kTimeout);
    CHECK(eventually(ApprovalAnswer::kExpired));

    wait(Ask(world));
    world.desk->approvals().Stop();
    CHECK(told == static_cast<int>(ApprovalAnswer::kExpired));
  }

  TEST_CASE("calls to the sandbox pass as part of the tool call that was approved, for a while") {
    DeskWorld world;
    const auto granted = [&](const std::string& tool, const std::string& line = "",
                             const std::string& sender = "whatsapp:1",
                             const std::string& session = "s", const std::string& id = "c1") {
      return world.desk->approvals().Granted(
          {.session = session, .sender = sender, .tool_call_id = id, .tool = tool, .line = line});
    };
    const auto approve = [&](const std::string& tool, const std::string& line = "") {
      static int number = 0;
      ApprovalSubject subject = kSubject;
      subject.tool = tool;
      subject.line = line;
      subject.parameters_sha256 = std::to_string(++number);
      subject.tool_call_id = "c" + subject.parameters_sha256;
      const std::string id = Ask(world, subject);
      REQUIRE(world.desk->approvals().Answer(id, true).ok());
      CHECK(!granted("stat", line, "whatsapp:1", "s", subject.tool_call_id));
      REQUIRE(Use(world, id, subject) == ApprovalAnswer::kAllowed);
      return subject.tool_call_id;
    };
    const auto mine = [&](const std::string& id, const std::string& tool,
                          const std::string& line = "") {
      return granted(tool, line, "whatsapp:1", "s", id);
    };
    SUBCASE("a command: the line that was approved, once, by whom it was approved for") {
      const std::string id = approve("exec", "date");
      CHECK(!granted("exec", "date", "whatsapp:1", "t", id));
      CHECK(!granted("exec", "date", "whatsapp:2", "s", id));
      CHECK(!granted("exec", "date", "", "s", id));
      CHECK(!granted("exec", "date", "whatsapp:1", "s", ""));
      CHECK(!mine(id, "exec", "echo NOT what was approved"));
      CHECK(!mine(id, "exec"));
      CHECK(!mine(id, "read"));
      CHECK(!mine(id, "write"));
      CHECK(!mine(id, "input"));
      CHECK(mine(id, "stat"));
      CHECK(mine(id, "exec", "date"));
      CHECK(!mine(id, "exec", "date"));
      CHECK(!mine(id, "stat"));
    }
    SUBCASE("no command for what is none") {
      for (const std::string tool : {"message", "read", "write", "process", "cron"}) {
        CAPTURE(tool);
        const std::string id = approve(tool, "");
        CHECK(!mine(id, "exec", "date"));
        CHECK(!mine(id, "exec"));
      }
      CHECK(!mine(approve("exec"), "exec"));
    }
    SUBCASE("what changes files for such tools only") {
      const std::string write = approve("edit");
      CHECK(mine(write, "read"));
      CHECK(mine(write, "write"));
      CHECK(!mine(write, "input"));
      const std::string read = approve("read");
      CHECK(mine(read, "stat"));
      CHECK(!mine(read, "write"));
      CHECK(!mine(read, "attach"));
      for (int i = 0; i < 15; ++i) {
        CHECK(mine(read, "read"));
      }
      CHECK(!mine(read, "read"));
      const std::string process = approve("process");
      CHECK(!mine(process, "read"));
      CHECK(mine(process, "attach"));
      CHECK(mine(process, "input"));
      CHECK(!mine(process, "input"));
    }
    SUBCASE("one grant for one tool_call_id") {
      ApprovalSubject subject = kSubject;
      subject.tool = "exec";
      for (const std::string line : {"date", "id"}) {
        subject.line = subject.parameters_sha256 = line;
        const std::string id = Ask(world, subject);
        REQUIRE(world.desk->approvals().Answer(id, true).ok());
        REQUIRE(Use(world, id, subject) == ApprovalAnswer::kAllowed);
        CHECK(granted("exec", line) == (line == "date"));
      }
    }
  }

  TEST_CASE("only so many wait at once") {
    DeskWorld world;
    ApprovalSubject subject = kSubject;
    for (int i = 0; i < 100; ++i) {
      subject.parameters_sha256 = std::to_string(i);
      Ask(world, subject);
    }
    subject.parameters_sha256 = "one more";
    CHECK(absl::IsResourceExhausted(
        world.desk->approvals().Ask(subject, "friend", "r", "", kTimeout).status()));
  }
}

}  // namespace
}  // namespace creel
