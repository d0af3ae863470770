#include <doctest/doctest.h>

#include <atomic>
#include <string>

#include "supervisor/session/session_manager.h"
#include "tests/supervisor/session/session_world.h"

namespace creel {
namespace {

bool Says(const absl::Status& status, std::string_view text) {
  return std::string(status.message()).find(text) != std::string::npos;
}

TEST_SUITE("SessionChanges") {
  TEST_CASE("closing removes sandbox and record; a second time there is nothing") {
    SessionWorld world;
    const std::string id = world.MustOpen("s").identity.id;
    CHECK(world.manager->Close("s", false, SessionWorld::Soon()).ok());
    CHECK(world.sandboxes.living(id)->state() == SandboxState::kClosed);
    CHECK(world.Recorded(id) == "none");
    CHECK(absl::IsNotFound(world.manager->Close("s", false, SessionWorld::Soon())));
  }

  TEST_CASE("a sandbox can be closed by its id") {
    SessionWorld world;
    CHECK(world.manager->Close(world.MustOpen("s").identity.id, false, SessionWorld::Soon()).ok());
  }

  TEST_CASE("what cannot be removed is kept in mind, and the session opens anew meanwhile") {
    SessionWorld world;
    world.sandboxes.SetResults({}, absl::UnavailableError("away"), absl::UnavailableError("away"));
    const std::string id = world.MustOpen("s").identity.id;
    const absl::Status closed = world.manager->Close("s", false, SessionWorld::Soon());
    CHECK(absl::IsUnavailable(closed));
    CHECK(Says(closed, "will be removed later"));
    CHECK(world.Recorded(id) == "closing");
    CHECK(world.MustOpen("s").identity.id != id);
    CHECK(world.manager->List().size() == 2);
    world.sandboxes.SetResults({}, {}, {});
    world.manager->Expire();
    CHECK(SessionWorld::Eventually([&] { return world.Recorded(id) == "none"; }));
  }

  TEST_CASE("a frozen session refuses calls, and says why") {
    SessionWorld world;
    const std::string id = world.MustOpen("s").identity.id;
    CHECK(absl::IsInvalidArgument(world.manager->Freeze("s", "", SessionWorld::Soon()).status()));
    const auto method = world.manager->Freeze("s", "it looks odd", SessionWorld::Soon());
    REQUIRE(method.ok());
    CHECK(*method == "engine");
    CHECK(world.Recorded(id) == "frozen");
    CHECK(world.manager->Get("s")->state == SessionState::kFrozen);
    CHECK(world.manager->Get("s")->reason == "it looks odd");
    const absl::Status refused = world.OpenStatus("s");
    CHECK(refused.code() == absl::StatusCode::kFailedPrecondition);
    CHECK(Says(refused, "is frozen: it looks odd"));
    CHECK(absl::IsFailedPrecondition(
        world.manager->Freeze("s", "again", SessionWorld::Soon()).status()));
    CHECK(Says(world.manager->Close("s", false, SessionWorld::Soon()), "--force"));
    CHECK(world.Recorded(id) == "frozen");

    CHECK(world.manager->Thaw("s", SessionWorld::Soon()).ok());
    CHECK(world.Recorded(id) == "running");
    CHECK(world.OpenStatus("s").ok());
    CHECK(absl::IsFailedPrecondition(world.manager->Thaw("s", SessionWorld::Soon())));
    CHECK(absl::IsNotFound(world.manager->Thaw("t", SessionWorld::Soon())));
  }

  TEST_CASE("a frozen session is closed by force") {
    SessionWorld world;
    const std::string id = world.MustOpen("s").identity.id;
    REQUIRE(world.manager->Freeze("s", "x", SessionWorld::Soon()).ok());
    CHECK(world.manager->Close("s", true, SessionWorld::Soon()).ok());
    CHECK(world.Recorded(id) == "none");
  }

  TEST_CASE("calls are refused even if the engine does not freeze") {
    SessionWorld world;
    world.sandboxes.SetResults({}, {}, {}, absl::UnavailableError("the engine does not answer"));
    const std::string id = world.MustOpen("s").identity.id;
    const auto method = world.manager->Freeze("s", "x", SessionWorld::Soon());
    CHECK(absl::IsUnavailable(method.status()));
    CHECK(Says(method.status(), "calls are refused"));
    CHECK(world.Recorded(id) == "frozen");
    CHECK(absl::IsFailedPrecondition(world.OpenStatus("s")));
    // It can be tried again.
    world.sandboxes.living(id)->freeze_result = absl::OkStatus();
    CHECK(world.manager->Freeze("s", "x", SessionWorld::Soon()).ok());
  }

  TEST_CASE("a lost sandbox cannot be frozen") {
    SessionWorld world;
    const std::string id = world.MustOpen("s").identity.id;
    world.sandboxes.living(id)->ContainerGone("gone");
    CHECK(
        absl::IsFailedPrecondition(world.manager->Freeze("s", "x", SessionWorld::Soon()).status()));
    CHECK(world.Recorded(id) == "running");
  }

  TEST_CASE("changes wait for an opening, but not for ever") {
    SessionWorld world;
    world.sandboxes.Hold();
    world.manager->Acquire({.session = "s"}, [](const auto&) {});
    world.sandboxes.AwaitCreating(1);
    CHECK(absl::IsDeadlineExceeded(
        world.manager->Close("s", false, After(std::chrono::milliseconds(30)))));
    std::thread releases([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      world.sandboxes.Release();
    });
    CHECK(world.manager->Freeze("s", "x", SessionWorld::Soon()).ok());
    releases.join();
  }

  TEST_CASE("an idle session is closed; calls restart the count, and one under way holds it") {
    SessionWorld world([](Config& config) {
      config.sessions.idle_timeout = std::chrono::hours(1);
      config.sessions.max_age = std::chrono::hours(100);
    });
    const std::string id = world.MustOpen("s").identity.id;
    world.clock.Move(std::chrono::minutes(59));
    world.manager->Expire();
    std::shared_ptr<Sandbox> call;
    world.manager->Acquire({.session = "s"}, [&](auto sandbox) { call = *sandbox; });
    REQUIRE(call != nullptr);
    world.clock.Move(std::chrono::hours(5));
    world.manager->Expire();
    CHECK(world.manager->Get("s").ok());
    call.reset();
    world.clock.Move(std::chrono::minutes(59));
    world.manager->Expire();
    CHECK(world.manager->Get("s").ok());
    world.clock.Move(std::chrono::minutes(1));
    world.manager->Expire();
    CHECK(SessionWorld::Eventually([&] { return world.Recorded(id) == "none"; }));
    CHECK(SessionWorld::Eventually([&] { return world.manager->List().empty(); }));
  }

  TEST_CASE("an old session is closed although it is called; a frozen one is never touched") {
    SessionWorld world([](Config& config) {
      config.sessions.idle_timeout = std::chrono::hours(1000);
      config.sessions.max_age = std::chrono::hours(10);
    });
    const std::string old = world.MustOpen("old").identity.id;
    const std::string frozen = world.MustOpen("frozen").identity.id;
    REQUIRE(world.manager->Freeze("frozen", "evidence", SessionWorld::Soon()).ok());
    std::shared_ptr<Sandbox> call;
    world.manager->Acquire({.session = "old"}, [&](auto sandbox) { call = *sandbox; });
    world.clock.Move(std::chrono::hours(2000));
    world.manager->Expire();
    CHECK(SessionWorld::Eventually([&] { return world.Recorded(old) == "none"; }));
    CHECK(world.Recorded(frozen) == "frozen");
    CHECK(world.manager->Get("frozen")->state == SessionState::kFrozen);
  }

  TEST_CASE("a call for a session that is being closed gets a new sandbox") {
    SessionWorld world(
        [](Config& config) { config.sessions.idle_timeout = std::chrono::hours(1); });
    const std::string id = world.MustOpen("s").identity.id;
    world.clock.Move(std::chrono::hours(2));
    world.manager->Expire();
    std::atomic<bool> came{false};
    world.manager->Acquire({.session = "s"}, [&](auto sandbox) {
      REQUIRE(sandbox.ok());
      CHECK((*sandbox)->identity().id != id);
      came = true;
    });
    CHECK(SessionWorld::Eventually([&] { return came.load(); }));
  }

  TEST_CASE("the time of the last call is written down by the timer") {
    SessionWorld world;
    const std::string id = world.MustOpen("s").identity.id;
    world.clock.Move(std::chrono::minutes(5));
    world.manager->Acquire({.session = "s"}, [](const auto&) {});
    world.manager->Expire();
    const auto records = world.store->List();
    REQUIRE(records.ok());
    CHECK(records->at(0).last_call_at == world.clock.Now());
  }

  TEST_CASE("what an incident holds is not thawed by hand") {
    SessionWorld world;
    world.MustOpen("s", "whatsapp:+15555550101");
    REQUIRE(world.manager->Freeze("s", "x", SessionWorld::Soon()).ok());
    for (const HoldRule& rule :
         {HoldRule{HoldRule::Scope::kSession, "s", "7", "odd"},
          HoldRule{HoldRule::Scope::kAll, "", "7", "odd"},
          HoldRule{HoldRule::Scope::kSender, "whatsapp:15555550101@s.whatsapp.net", "7", "odd"}}) {
      world.manager->SetHolds({rule});
      CHECK(Says(world.manager->Thaw("s", SessionWorld::Soon()), "creel incident thaw 7"));
      CHECK(world.manager->Get("s")->state == SessionState::kFrozen);
    }
    CHECK(world.manager->ThawHeld("s", SessionWorld::Soon()).ok());
    CHECK(world.manager->Get("s")->state == SessionState::kRunning);
  }

  TEST_CASE("one that could only be killed does not stay frozen when the incident ends") {
    SessionWorld world;
    const std::string id = world.MustOpen("s").identity.id;
    REQUIRE(world.manager->Freeze("s", "x", SessionWorld::Soon()).ok());
    world.sandboxes.living(id)->ContainerGone("killed");
    // By hand it is said what would be lost.
    CHECK(Says(world.manager->Thaw("s", SessionWorld::Soon()), "--force"));
    CHECK(world.manager->ThawHeld("s", SessionWorld::Soon()).ok());
    CHECK(world.manager->Get("s")->state == SessionState::kLost);
    CHECK(world.MustOpen("s").identity.id != id);
  }
}

}  // namespace
}  // namespace creel
