#include "supervisor/policy/placement.h"

#include <doctest/doctest.h>

#include <string>

namespace creel {
namespace {

TEST_SUITE("Placement") {
  TEST_CASE("keys that cannot be are refused") {
    CHECK(CheckSessionKey("agent:main:whatsapp:group:1").ok());
    CHECK(CheckSessionKey(std::string(512, 'x')).ok());
    CHECK(CheckSessionKey("gr\xc3\xbc\xc3\x9f").ok());
    for (const std::string& key :
         {std::string(), std::string(513, 'x'), std::string("a\nb"), std::string("a\0b", 3),
          std::string("a\x7f"), std::string("\xff"), std::string("\xc0\xaf")}) {
      CAPTURE(key);
      CHECK(CheckSessionKey(key).code() == absl::StatusCode::kInvalidArgument);
    }
    CHECK(CheckSender("").ok());
    CHECK_FALSE(CheckSender("a\tb").ok());
  }

  TEST_CASE("only the owner's own session is the main one") {
    CHECK(IsMainSession("agent:main:main"));
    CHECK(IsMainSession("agent:work:main"));
    for (const char* key : {"main", "agent::main", "agent:main", "agent:main:main:thread:1",
                            "agent:a:b:main", "agent:main:whatsapp:group:main", "AGENT:main:main",
                            "agent:main:Main", " agent:main:main", "agent:main:main "}) {
      CAPTURE(key);
      CHECK_FALSE(IsMainSession(key));
    }
  }

  TEST_CASE("mode and scope decide") {
    const struct {
      SandboxMode mode;
      SandboxScope scope;
      const char* session;
      bool sandboxed;
      const char* rule;
      const char* name;
    } kRows[] = {
        {SandboxMode::kNonMain, SandboxScope::kSession, "agent:main:main", false, "placement.main",
         "agent:main:main"},
        {SandboxMode::kNonMain, SandboxScope::kSession, "agent:main:x", true, "placement.non-main",
         "agent:main:x"},
        {SandboxMode::kAll, SandboxScope::kSession, "agent:main:main", true, "placement.all",
         "agent:main:main"},
        {SandboxMode::kOff, SandboxScope::kSession, "agent:main:x", false, "placement.off",
         "agent:main:x"},
        {SandboxMode::kNonMain, SandboxScope::kAgent, "agent:work:x:y", true, "placement.non-main",
         "agent:work:*"},
        {SandboxMode::kNonMain, SandboxScope::kAgent, "cron:x", true, "placement.non-main",
         "cron:x"},
        {SandboxMode::kNonMain, SandboxScope::kShared, "cron:x", true, "placement.non-main", "*"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.session);
      SandboxConfig config;
      config.mode = row.mode;
      config.scope = row.scope;
      const Placement placement = Place(config, row.session);
      CHECK(placement.sandboxed == row.sandboxed);
      CHECK(placement.rule == row.rule);
      CHECK(placement.sandbox_name == row.name);
      if (!row.sandboxed) {
        const absl::Status refusal = RunsOnHost(placement, row.session);
        CHECK(refusal.code() == absl::StatusCode::kFailedPrecondition);
        CHECK(std::string(refusal.message()).find("runs on the host by policy") !=
              std::string::npos);
      }
    }
  }
}

}  // namespace
}  // namespace creel
