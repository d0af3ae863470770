#include "supervisor/audit/audit_query.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/supervisor/audit/audit_world.h"

namespace creel {
namespace {

struct QueryWorld : AuditWorld {
  QueryWorld() {
    options.max_file_bytes = 2048;
    Open();
    for (int i = 0; i < 20; ++i) {
      const bool odd = i % 2 != 0;
      REQUIRE(log->Append(AuditEvent(odd ? "call.denied" : "call.allowed")
                              .Number("call", i)
                              .Text("session", odd ? "agent:main:dm:1" : "agent:main:dm:11")
                              .Text("sender", "whatsapp:\"1\"")
                              .Text("tool", i % 5 == 0 ? "write" : "exec")
                              .Text("verdict", odd ? "deny" : "allow")
                              .Text("summary", "\",\"session\":\"agent:main:dm:99\""))
                  .ok());
      clock.Move(std::chrono::seconds(60));
    }
    REQUIRE(Files().size() > 2);
  }
  size_t Count(const AuditQuery& query) const {
    const auto lines = NewestRecords(options.directory, query, 1000);
    REQUIRE(lines.ok());
    return lines->size();
  }
};

TEST_SUITE("AuditQuery") {
  TEST_CASE("each filter takes exactly what it names") {
    const QueryWorld world;
    CHECK(world.Count({}) == 21);
    CHECK(world.Count({.session = "agent:main:dm:1"}) == 10);
    CHECK(world.Count({.session = "agent:main:dm:11"}) == 10);
    CHECK(world.Count({.session = "agent:main:dm:99"}) == 0);
    CHECK(world.Count({.sender = "whatsapp:\"1\""}) == 20);
    CHECK(world.Count({.tool = "write"}) == 4);
    CHECK(world.Count({.verdict = "deny"}) == 10);
    CHECK(world.Count({.event = "call."}) == 20);
    CHECK(world.Count({.event = "call.denied"}) == 10);
    CHECK(world.Count({.event = "call"}) == 0);
    CHECK(world.Count({.tool = "write", .verdict = "deny"}) == 2);
    CHECK(world.Count({.since = "2026-11-27T12:10"}) == 10);
    CHECK(world.Count({.until = "2026-11-27T12:10"}) == 11);
    CHECK(world.Count({.after_seq = 20}) == 1);
    CHECK(world.Count({.any_session = {"agent:main:dm:1", "agent:main:dm:11"}}) == 20);
    CHECK(world.Count({.any_sandbox = {"none"}}) == 0);
  }

  TEST_CASE("a session is found by a name that the record masks, and by that of before") {
    QueryWorld world;
    const std::string name = "agent:main:dm:hunter2-hunter2";
    const auto tell = [&] {
      REQUIRE(world.log->Append(AuditEvent("call.allowed").Text("session", name)).ok());
    };
    tell();
    world.log->SetSecrets({{"key", "hunter2-hunter2"}});
    tell();
    tell();
    AuditQuery query{.session = name};
    CHECK(world.Count(query) == 1);
    query.FindMasked(*world.log);
    CHECK(world.Count(query) == 3);
    AuditQuery any{.any_session = {"none", name}};
    any.FindMasked(*world.log);
    CHECK(world.Count(any) == 3);
    AuditQuery other{.session = "agent:main:dm:1"};
    other.FindMasked(*world.log);
    CHECK(world.Count(other) == 10);
    // As the record shows it, it is found too.
    AuditQuery mark{.session = "agent:main:dm:[secret key]"};
    mark.FindMasked(*world.log);
    CHECK(world.Count(mark) == 2);
  }

  TEST_CASE("the newest come, in the order in which they were written") {
    const QueryWorld world;
    const auto lines = NewestRecords(world.options.directory, {}, 3);
    REQUIRE(lines.ok());
    REQUIRE(lines->size() == 3);
    CHECK(ParseFrame((*lines)[0])->seq == 19);
    CHECK(ParseFrame((*lines)[2])->seq == 21);
  }

  TEST_CASE("a reader at the end goes on with what is written later, in this file and the next") {
    QueryWorld world;
    AuditReader reader(world.options.directory, {.event = "late"});
    CHECK_FALSE((*reader.Next()).has_value());
    for (int i = 0; i < 30; ++i) {
      REQUIRE(world.log->Append(AuditEvent("late").Text("t", std::string(100, 'x'))).ok());
      const auto line = reader.Next();
      REQUIRE(line.ok());
      CHECK(line->has_value());
      CHECK_FALSE((*reader.Next()).has_value());
    }
  }

  TEST_CASE("a folder that is not there is an error") {
    AuditReader reader("/tmp/creel-no-such-folder", {});
    CHECK(absl::IsNotFound(reader.Next().status()));
  }
}

}  // namespace
}  // namespace creel
