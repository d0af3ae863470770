#include "supervisor/daemon/reload.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "supervisor/config/load_config.h"

namespace creel {
namespace {

TEST_SUITE("Reload") {
  TEST_CASE("only what needs a restart is named") {
    const Config running = *ParseConfig("", "c.yaml");
    const struct {
      const char* text;
      std::vector<std::string> sections;
    } kRows[] = {
        {"", {}},
        {"sessions: {max: 5, idle_timeout: 1h}\nlog: {level: debug}", {}},
        {"engine: {timeout: 5s}", {"engine"}},
        {"paths: {state_dir: /srv/creel}", {"paths"}},
        {"gateway: {uids: [1000]}", {"gateway"}},
        {"operator: {group: x}", {"operator"}},
        {"sandbox: {limits: {pids: 99}}\nlog: {journald: true}", {"sandbox", "log.journald"}},
        {"concessions: [no-idmap]", {"concessions"}},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text);
      const absl::StatusOr<Config> fresh = ParseConfig(row.text, "c.yaml");
      REQUIRE(fresh.ok());
      CHECK(NeedRestart(running, *fresh) == row.sections);
    }
  }

  TEST_CASE("sandboxes with other limits than they would get now are found") {
    const Config before = *ParseConfig("", "c.yaml");
    const Config fresh =
        *ParseConfig("levels: {stranger: {limits: {memory: 64MiB, pids: 32}}}", "c.yaml");
    LimitsConfig limits = before.sandbox.limits;
    CHECK_FALSE(WouldGetOtherLimits(limits, "friend", fresh));
    CHECK(WouldGetOtherLimits(limits, "stranger", fresh));
    limits.memory_bytes = 64u << 20;
    limits.pids = 32;
    // It has the /tmp of before, or the smaller one that it was made with.
    CHECK_FALSE(WouldGetOtherLimits(limits, "stranger", fresh));
    FitToMemory(limits);
    CHECK_FALSE(WouldGetOtherLimits(limits, "stranger", fresh));
    limits.workspace_bytes += 1;
    CHECK(WouldGetOtherLimits(limits, "stranger", fresh));
  }
}

}  // namespace
}  // namespace creel
