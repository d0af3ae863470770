#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/supervisor/session/session_world.h"

namespace creel {
namespace {

constexpr uint64_t kMiB = 1u << 20;

// Friends get half of everything, strangers little.
void WithLimits(Config& config) {
  config.policy.levels[kFriend].members = {"whatsapp:1"};
  config.policy.levels[kFriend].limits = {.memory_bytes = 512 * kMiB, .cpus = 0.5, .pids = 128};
  config.policy.levels[kStranger].limits = {.memory_bytes = 64 * kMiB, .cpus = 0.1, .pids = 32};
}

CallQuestion Call(const std::string& session, const std::string& sender) {
  return {.session = session, .sender = ParseSender(sender), .tool = "exec"};
}

const FakeEngine::Container* Find(const std::vector<FakeEngine::Container>& all,
                                  const std::string& id) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.id == id; });
  return found == all.end() ? nullptr : &*found;
}

bool Held(SessionWorld& world, const std::string& container, uint64_t memory, double cpus,
          int64_t pids) {
  const auto all = world.engine.Containers();
  const FakeEngine::Container* const found = Find(all, container);
  return found != nullptr && found->config.memory_bytes == static_cast<int64_t>(memory) &&
         found->config.nano_cpus == static_cast<int64_t>(cpus * 1e9) &&
         found->config.pids_limit == pids + 64;
}

TEST_SUITE("SessionLimits") {
  TEST_CASE("a sandbox is made with its level's limits, and what is memory too shrinks with it") {
    SessionWorld world(WithLimits);
    const SessionView mine = world.MustOpen("s");
    CHECK(mine.identity.limits.memory_bytes == 512 * kMiB);
    CHECK(mine.identity.limits.cpus == 0.5);
    CHECK(mine.identity.limits.pids == 128);
    CHECK(mine.identity.limits.tmp_bytes + mine.identity.limits.run_bytes +
              mine.identity.limits.shm_bytes <=
          256 * kMiB);
    REQUIRE(world.desk->BeginCall(Call("t", "whatsapp:9")).ok());
    CHECK(world.MustOpen("t").identity.limits.pids == 32);
  }

  TEST_CASE("a level that falls takes the limits with it, and a restart knows of that") {
    SessionWorld world(WithLimits);
    const SessionView open = world.MustOpen("s");
    REQUIRE(world.desk->BeginCall(Call("s", "whatsapp:9")).ok());
    CHECK(SessionWorld::Eventually(
        [&] { return Held(world, open.identity.container_id, 64 * kMiB, 0.1, 32); }));
    CHECK(SessionWorld::Eventually(
        [&] { return world.manager->Get("s")->identity.limits.pids == 32; }));
    CHECK(world.manager->Get("s")->identity.limits.tmp_bytes == open.identity.limits.tmp_bytes);

    world.sandboxes.SetAdoptable(open.identity.id, SandboxState::kRunning);
    world.Restart();
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    CHECK(world.manager->Get("s")->identity.limits.memory_bytes == 64 * kMiB);
    CHECK(world.Recorded(open.identity.id) == "running");
    // Nobody gets more for coming later.
    REQUIRE(world.desk->BeginCall(Call("s", "whatsapp:1")).ok());
    CHECK(Held(world, open.identity.container_id, 64 * kMiB, 0.1, 32));
  }

  TEST_CASE("a level that falls while the sandbox is being made is followed when it is there") {
    SessionWorld world(WithLimits);
    world.sandboxes.Hold();
    world.manager->Acquire({.session = "s"}, [](auto) {});
    world.sandboxes.AwaitCreating(1);
    REQUIRE(world.desk->BeginCall(Call("s", "whatsapp:9")).ok());
    world.sandboxes.Release();
    CHECK(SessionWorld::Eventually([&] {
      const auto view = world.manager->Get("s");
      return view.ok() && Held(world, view->identity.container_id, 64 * kMiB, 0.1, 32);
    }));
  }

  TEST_CASE("another configuration is followed at once") {
    SessionWorld world(WithLimits);
    const SessionView open = world.MustOpen("s");
    Config next = world.config;
    next.policy.levels[kFriend].limits.pids = 99;
    REQUIRE(world.desk->Reload(next).ok());
    world.manager->FollowLimits();
    CHECK(SessionWorld::Eventually(
        [&] { return Held(world, open.identity.container_id, 512 * kMiB, 0.5, 99); }));
  }

  TEST_CASE("limits that cannot be set are told, and tried again") {
    SessionWorld world(WithLimits);
    const SessionView open = world.MustOpen("s");
    for (int i = 0; i < 2; ++i) {
      // Memory that is in use cannot be taken; the second try is after what runs was ended.
      world.engine.FailNext("UpdateContainer", absl::InternalError("device or resource busy"));
    }
    REQUIRE(world.desk->BeginCall(Call("s", "whatsapp:9")).ok());
    CHECK(
        SessionWorld::Eventually([&] { return !world.manager->Get("s")->limits_problem.empty(); }));
    CHECK(world.manager->Get("s")->limits_problem.find("busy") != std::string::npos);
    CHECK_FALSE(Held(world, open.identity.container_id, 64 * kMiB, 0.1, 32));
    CHECK(SessionWorld::Eventually([&] {
      world.manager->Expire();
      return world.manager->Get("s")->limits_problem.empty();
    }));
    CHECK(Held(world, open.identity.container_id, 64 * kMiB, 0.1, 32));
  }
}

}  // namespace
}  // namespace creel
