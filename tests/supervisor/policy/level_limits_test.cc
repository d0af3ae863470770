#include "supervisor/policy/level_limits.h"

#include <doctest/doctest.h>

#include <random>

namespace creel {
namespace {

TEST_SUITE("LevelLimits") {
  TEST_CASE("a level has its own limits, else those of all, and never more than one above it") {
    Config config;
    config.policy.levels[kOwner].limits = {.cpus = 4};
    config.policy.levels[kFriend].limits = {.memory_bytes = 2ull << 30, .cpus = 2, .pids = 100};
    config.policy.levels[kStranger].limits = {.cpus = 3, .pids = 200};
    const Levels levels(config.policy.levels);
    const auto at = [&](const char* level) {
      return LimitsAt(config.policy, config.sandbox.limits, levels, levels.Of(level));
    };
    CHECK(at(kOwner).cpus == 4);
    CHECK(at(kOwner).memory_bytes == 1ull << 30);
    CHECK(at(kOwner).pids == 256);
    CHECK(at(kFriend).cpus == 2);
    CHECK(at(kFriend).memory_bytes == 1ull << 30);
    CHECK(at(kFriend).pids == 100);
    CHECK(at(kStranger).cpus == 2);  // it has asked for more than a friend gets
    CHECK(at(kStranger).pids == 100);
    CHECK(at(kStranger).workspace_bytes == config.sandbox.limits.workspace_bytes);
  }

  TEST_CASE("lowering a level never gives more, whatever is configured") {
    std::mt19937 random(6);
    const auto one_of = [&](auto... values) {
      const std::common_type_t<decltype(values)...> all[] = {values...};
      return all[random() % (sizeof all / sizeof all[0])];
    };
    for (int round = 0; round < 500; ++round) {
      Config config;
      config.policy.levels["family"].rank = 70;
      for (auto& [name, level] : config.policy.levels) {
        level.limits = {.memory_bytes = one_of(0ull, 64ull << 20, 1ull << 30, 4ull << 30),
                        .cpus = one_of(0.0, 0.1, 1.0, 8.0),
                        .pids = one_of(0u, 16u, 256u, 4096u)};
      }
      const Levels levels(config.policy.levels);
      for (Level level = 1; level <= levels.highest(); ++level) {
        const LimitsConfig lower =
            LimitsAt(config.policy, config.sandbox.limits, levels, level - 1);
        const LimitsConfig higher = LimitsAt(config.policy, config.sandbox.limits, levels, level);
        CHECK(lower.memory_bytes <= higher.memory_bytes);
        CHECK(lower.cpus <= higher.cpus);
        CHECK(lower.pids <= higher.pids);
      }
    }
  }
}

}  // namespace
}  // namespace creel
