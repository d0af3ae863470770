#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <string>

#include "tests/supervisor/session/session_world.h"

namespace creel {
namespace {

using std::chrono::minutes;

constexpr char kSession[] = "agent:main:dm:1";

// The sandbox that a call gets, or why not.
absl::StatusOr<std::shared_ptr<Sandbox>> Acquire(SessionWorld& world) {
  struct Answer {
    Mutex mu;
    bool there = false;
    absl::StatusOr<std::shared_ptr<Sandbox>> sandbox = absl::UnknownError("none");
  };
  const auto answer = std::make_shared<Answer>();
  world.manager->Acquire({.session = kSession}, [answer](auto sandbox) {
    MutexLock hold(answer->mu);
    answer->sandbox = std::move(sandbox);
    answer->there = true;
  });
  REQUIRE(SessionWorld::Eventually([&] {
    MutexLock hold(answer->mu);
    return answer->there;
  }));
  MutexLock hold(answer->mu);
  return std::move(answer->sandbox);
}

TEST_SUITE("SessionPause") {
  TEST_CASE("a sandbox that nobody calls is paused, and the next call lets it go on") {
    SessionWorld world;
    const std::string id = world.MustOpen(kSession).identity.id;
    const auto sandbox = world.sandboxes.living(id);
    world.clock.Move(minutes(9));
    world.manager->PauseIdle();
    CHECK_FALSE(sandbox->paused());
    world.clock.Move(minutes(2));
    world.manager->PauseIdle();
    CHECK(sandbox->paused());
    CHECK(world.manager->Get(kSession)->state == SessionState::kRunning);
    CHECK(world.manager->Get(kSession)->reason.find("paused") == 0);
    const auto lease = Acquire(world);
    REQUIRE(lease.ok());
    CHECK_FALSE(sandbox->paused());
    CHECK(world.manager->Get(kSession)->reason.empty());
  }

  TEST_CASE("one that is being called is not paused, however long the call takes") {
    SessionWorld world;
    const auto sandbox = world.sandboxes.living(world.MustOpen(kSession).identity.id);
    auto lease = Acquire(world);
    world.clock.Move(minutes(60));
    world.manager->PauseIdle();
    CHECK_FALSE(sandbox->paused());
    lease = absl::UnknownError("given back");
    world.clock.Move(minutes(9));
    world.manager->PauseIdle();
    CHECK_FALSE(sandbox->paused());
  }

  TEST_CASE("a call that comes while it is being paused gets one that goes on") {
    SessionWorld world;
    const auto sandbox = world.sandboxes.living(world.MustOpen(kSession).identity.id);
    absl::StatusOr<std::shared_ptr<Sandbox>> lease = absl::UnknownError("none yet");
    sandbox->between = [&] { lease = Acquire(world); };
    world.clock.Move(minutes(11));
    world.manager->PauseIdle();
    REQUIRE(lease.ok());
    CHECK_FALSE(sandbox->paused());
  }

  TEST_CASE("off means never") {
    SessionWorld world(
        [](Config& config) { config.sessions.pause_after = std::chrono::seconds(0); });
    const auto sandbox = world.sandboxes.living(world.MustOpen(kSession).identity.id);
    world.clock.Move(minutes(60));
    world.manager->PauseIdle();
    CHECK_FALSE(sandbox->paused());
  }

  TEST_CASE("what the engine cannot pause stays awake, and is tried again later, not at once") {
    SessionWorld world;
    const auto sandbox = world.sandboxes.living(world.MustOpen(kSession).identity.id);
    sandbox->pause_result = absl::InternalError("the engine could not");
    world.clock.Move(minutes(11));
    world.manager->PauseIdle();
    CHECK_FALSE(sandbox->paused());
    CHECK(Acquire(world).ok());
    sandbox->pause_result = absl::OkStatus();
    world.clock.Move(minutes(9));
    world.manager->PauseIdle();
    CHECK_FALSE(sandbox->paused());
    world.clock.Move(minutes(2));
    world.manager->PauseIdle();
    CHECK(sandbox->paused());
  }

  TEST_CASE("a call to one that cannot be let go on is told so, and does not hang") {
    SessionWorld world;
    const auto sandbox = world.sandboxes.living(world.MustOpen(kSession).identity.id);
    world.clock.Move(minutes(11));
    world.manager->PauseIdle();
    REQUIRE(sandbox->paused());
    sandbox->resume_result = absl::UnavailableError("the engine is away");
    const auto lease = Acquire(world);
    REQUIRE_FALSE(lease.ok());
    CHECK(lease.status().message().find("the engine is away") != absl::string_view::npos);
  }

  TEST_CASE("a frozen one is neither paused nor let go on by a call") {
    SessionWorld world;
    const auto sandbox = world.sandboxes.living(world.MustOpen(kSession).identity.id);
    REQUIRE(world.manager->Freeze(kSession, "look at it", SessionWorld::Soon()).ok());
    world.clock.Move(minutes(60));
    world.manager->PauseIdle();
    CHECK_FALSE(sandbox->paused());
    CHECK(absl::IsFailedPrecondition(Acquire(world).status()));
    CHECK(sandbox->state() == SandboxState::kFrozen);
  }
}

}  // namespace
}  // namespace creel
