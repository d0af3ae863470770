#include "supervisor/session/warm_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>
#include <thread>

#include "tests/supervisor/session/session_world.h"

namespace creel {
namespace {

// A world whose pool holds `size`, and may be filled at once.
std::function<void(Config&)> PoolOf(uint32_t size) {
  return [size](Config& config) {
    config.sessions.warm_pool = {.automatic = false, .size = size, .refill_rate = 60'000};
    config.sessions.opens_per_minute = 1000;
  };
}

// Waits for `count` containers that wait, and lets time pass meanwhile.
bool Filled(SessionWorld& world, size_t count) {
  return SessionWorld::Eventually([&] {
    world.clock.Move(std::chrono::seconds(2));
    return world.manager->Pool()->ready == count;
  });
}

size_t Pooled(SessionWorld& world) {
  const auto records = world.store->List();
  REQUIRE(records.ok());
  return static_cast<size_t>(
      std::count_if(records->begin(), records->end(),
                    [](const SessionRecord& record) { return record.state == kPooledState; }));
}

TEST_SUITE("WarmPool") {
  TEST_CASE("an opening takes a container that waits, and it becomes that session's") {
    SessionWorld world(PoolOf(2));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 2));
    CHECK(Pooled(world) == 2);
    const std::vector<SandboxIdentity> made = world.sandboxes.made_ahead();
    const SessionView view = world.MustOpen("agent:main:dm:1");
    const auto same = std::find_if(made.begin(), made.end(), [&](const SandboxIdentity& each) {
      return each.id == view.identity.id;
    });
    REQUIRE(same != made.end());
    CHECK(same->key == view.identity.key);
    CHECK(same->tool_uid == view.identity.tool_uid);
    CHECK_FALSE(view.identity.container_id.empty());
    CHECK(world.sandboxes.created().empty());
    CHECK(world.Recorded(view.identity.id) == "running");
    // It went through the store as that session's before it was begun with.
    REQUIRE(world.sandboxes.claimed().size() == 1);
    CHECK(world.sandboxes.claimed()[0].id == view.identity.id);
  }

  TEST_CASE("one that has served is removed, and never waits again") {
    SessionWorld world(PoolOf(1));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    std::set<std::string> used;
    std::set<uint32_t> uids;
    for (int i = 0; i < 5; ++i) {
      REQUIRE(Filled(world, 1));
      const SessionView view = world.MustOpen("agent:main:dm:1");
      CHECK(used.insert(view.identity.id).second);
      CHECK(uids.insert(view.identity.tool_uid).second);
      REQUIRE(world.manager->Close("agent:main:dm:1", false, SessionWorld::Soon()).ok());
      CHECK(world.Recorded(view.identity.id) == "none");
    }
  }

  TEST_CASE("with none that waits a session opens cold at once, while the refill holds still") {
    SessionWorld world(PoolOf(1));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 1));
    world.sandboxes.Hold();
    const std::string warm = world.MustOpen("agent:main:dm:1").identity.id;
    std::thread cold([&] { world.MustOpen("agent:main:dm:2"); });
    world.sandboxes.AwaitCreating(1);
    // While somebody waits for a container nothing else is made, however much time passes.
    for (int i = 0; i < 20; ++i) {
      world.clock.Move(std::chrono::seconds(10));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    CHECK(world.sandboxes.made_ahead().size() == 1);
    world.sandboxes.Release();
    cold.join();
    CHECK(world.sandboxes.created()[0].id != warm);
    CHECK(Filled(world, 1));
  }

  TEST_CASE("one of another shape is not taken") {
    SessionWorld world(PoolOf(1));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 1));
    const SandboxIdentity made = world.sandboxes.made_ahead()[0];
    struct Row {
      const char* what;
      std::function<void(SandboxIdentity&)> change;
    };
    auto uids = std::make_shared<ToolUids>(3'000'000, 10);
    FakeSandboxes sandboxes;
    Sandbox::Host host = world.host();
    WarmPool pool({.host = host,
                   .store = *world.store,
                   .sandboxes = sandboxes,
                   .uids = uids,
                   .clock = world.clock},
                  world.config.sessions);
    pool.Start();
    REQUIRE(SessionWorld::Eventually([&] {
      world.clock.Move(std::chrono::seconds(2));
      return pool.View().ready == 1;
    }));
    for (const Row& row :
         {Row{"image", [](SandboxIdentity& i) { i.image = "other:latest"; }},
          Row{"runtime", [](SandboxIdentity& i) { i.runtime = "runsc"; }},
          Row{"memory", [](SandboxIdentity& i) { i.limits.memory_bytes /= 2; }},
          Row{"workspace", [](SandboxIdentity& i) { i.limits.workspace_bytes *= 2; }}}) {
      CAPTURE(row.what);
      SandboxIdentity wanted;
      wanted.image = made.image;
      wanted.runtime = made.runtime;
      wanted.limits = made.limits;
      row.change(wanted);
      CHECK(pool.Take(wanted).sandbox == nullptr);
    }
    SandboxIdentity wanted;
    wanted.image = made.image;
    wanted.limits = made.limits;
    CHECK(pool.Take(wanted).sandbox != nullptr);
  }

  TEST_CASE("a container that cannot be claimed is removed, and the session opens cold") {
    SessionWorld world(PoolOf(1));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 1));
    world.sandboxes.SetPoolResults(absl::OkStatus(), absl::UnavailableError("it did not arrive"));
    const SessionView view = world.MustOpen("agent:main:dm:1");
    CHECK(world.sandboxes.created().size() == 1);
    const std::vector<std::string> removed = world.sandboxes.removed();
    CHECK(std::find(removed.begin(), removed.end(), view.identity.id) != removed.end());
  }

  TEST_CASE("what waited when the supervisor was killed is removed by the next") {
    SessionWorld world(PoolOf(3));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 3));
    const std::vector<SessionRecord> before = *world.store->List();
    REQUIRE(before.size() == 3);
    const std::vector<SandboxIdentity> made = world.sandboxes.made_ahead();
    world.Restart();
    // An orderly end removes them; put them back as a kill leaves them.
    for (const SessionRecord& record : before) {
      REQUIRE(world.store->Put(record).ok());
    }
    world.config.sessions.warm_pool.size = 0;
    world.Restart();
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    CHECK(SessionWorld::Eventually([&] { return Pooled(world) == 0; }));
    const std::vector<std::string> removed = world.sandboxes.removed();
    for (const SandboxIdentity& each : made) {
      // By the orderly end, and by the next start.
      CHECK(std::count(removed.begin(), removed.end(), each.id) == 2);
    }
    CHECK(world.manager->Unknown().empty());
    CHECK(world.manager->List().empty());
  }

  TEST_CASE("an orderly end removes what waits") {
    SessionWorld world(PoolOf(3));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 3));
    world.manager->Stop();
    CHECK(Pooled(world) == 0);
    CHECK(world.sandboxes.removed().size() == 3);
  }

  TEST_CASE("emptied it stays empty until somebody opens a session") {
    SessionWorld world(PoolOf(3));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    // Also while it is filled just now.
    REQUIRE(Filled(world, 2));
    CHECK(world.manager->EmptyPool(SessionWorld::Soon()).ok());
    CHECK(Pooled(world) == 0);
    CHECK(world.sandboxes.removed().size() == world.sandboxes.made_ahead().size());
    for (int i = 0; i < 20; ++i) {
      world.clock.Move(std::chrono::seconds(2));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    CHECK(Pooled(world) == 0);
    CHECK(world.manager->Pool()->wanted == 0);
    world.MustOpen("agent:main:dm:1");
    CHECK(world.sandboxes.created().size() == 1);
    CHECK(Filled(world, 3));
  }

  TEST_CASE("no more are made than the ceiling of memory has room for") {
    SessionWorld world([](Config& config) {
      // Each fake one takes 10 MiB.
      config.sessions.warm_pool = {
          .automatic = false, .size = 20, .refill_rate = 60'000, .memory_ceiling_bytes = 45u << 20};
    });
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 4));
    for (int i = 0; i < 20; ++i) {
      world.clock.Move(std::chrono::seconds(2));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    const auto view = world.manager->Pool();
    CHECK(view->ready == 4);
    CHECK(view->wanted == 20);
    CHECK(view->why.find("memory_ceiling") != std::string::npos);
  }

  TEST_CASE("auto follows the openings of the last ten minutes, up and down") {
    SessionWorld world([](Config& config) {
      config.sessions.warm_pool = {.automatic = true, .refill_rate = 60'000};
      config.sessions.opens_per_minute = 1000;
    });
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 1));
    for (int i = 0; i < 5; ++i) {
      world.MustOpen("agent:main:dm:" + std::to_string(i));
    }
    CHECK(world.manager->Pool()->wanted == 5);
    world.clock.Move(std::chrono::minutes(11));
    CHECK(world.manager->Pool()->wanted == 1);
    for (int i = 0; i < 40; ++i) {
      world.MustOpen("agent:main:dm:more:" + std::to_string(i));
    }
    CHECK(world.manager->Pool()->wanted == 16);
  }

  TEST_CASE("an image that was built anew is not served from what waits") {
    SessionWorld world(PoolOf(1));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    REQUIRE(Filled(world, 1));
    const std::string old = world.sandboxes.made_ahead()[0].id;
    world.engine.AddImage(world.config.sandbox.image, {.id = "sha256:new"});
    CHECK(SessionWorld::Eventually([&] {
      world.clock.Move(std::chrono::seconds(61));
      world.manager->SetLimits(world.config.sessions);  // wakes the pool's thread
      const std::vector<std::string> removed = world.sandboxes.removed();
      return std::count(removed.begin(), removed.end(), old) == 1;
    }));
    REQUIRE(Filled(world, 1));
    CHECK(world.MustOpen("agent:main:dm:1").identity.id != old);
  }
}

}  // namespace
}  // namespace creel
