#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "supervisor/sandbox/sandbox_paths.h"
#include "supervisor/session/record_codec.h"
#include "supervisor/session/session_manager.h"
#include "tests/supervisor/session/session_world.h"

namespace creel {
namespace {

// Puts a record in the store as an earlier supervisor left it.
void PutRecord(SessionWorld& world, const std::string& id, const std::string& session,
               const std::string& state) {
  SandboxIdentity identity;
  identity.id = id;
  identity.key = std::string(32, 'k');
  identity.tool_uid = world.config.sandbox.tool_uid_base;
  identity.container_id = "container-" + id;
  SessionRecord record;
  IdentityToRecord(identity, record);
  record.session = session;
  record.sender = "a";
  record.state = state;
  record.reason = state == "frozen" ? "evidence" : "";
  record.opened_at = world.clock.Now();
  record.last_call_at = world.clock.Now();
  REQUIRE(world.store->Put(record).ok());
}

// A running container in the engine, labelled as this install's.
std::string AddContainer(SessionWorld& world, const std::string& sandbox_id) {
  ContainerConfig config;
  config.name = "creel-" + sandbox_id;
  config.image = world.config.sandbox.image;
  config.labels = {{"creel.install", world.store->install_id()}, {"creel.sandbox", sandbox_id}};
  const absl::StatusOr<std::string> id = world.engine.CreateContainer(config, SessionWorld::Soon());
  REQUIRE(id.ok());
  REQUIRE(world.engine.StartContainer(*id, SessionWorld::Soon()).ok());
  return *id;
}

// Makes the sandbox one that lives: it can be adopted, and the engine knows its container.
void LetLive(SessionWorld& world, const std::string& id, SandboxState state) {
  world.sandboxes.SetAdoptable(id, state);
  AddContainer(world, id);
}

bool Removed(SessionWorld& world, const std::string& id) {
  const std::vector<std::string> removed = world.sandboxes.removed();
  return std::find(removed.begin(), removed.end(), id) != removed.end();
}

const std::string kId = "00000000000000aa";

TEST_SUITE("SessionRecovery") {
  TEST_CASE("what runs is adopted under its key and serves") {
    SessionWorld world;
    const std::string id = world.MustOpen("s", "a").identity.id;
    world.sandboxes.SetAdoptable(id, SandboxState::kRunning);
    world.Restart();
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    const auto view = world.manager->Get("s");
    REQUIRE(view.ok());
    CHECK(view->state == SessionState::kRunning);
    CHECK(view->identity.id == id);
    CHECK(view->sender == "a");
    CHECK(world.MustOpen("s").identity.id == id);
    CHECK(world.sandboxes.created().size() == 1);
    // Its uid is not given to another.
    CHECK(world.MustOpen("t").identity.tool_uid != view->identity.tool_uid);
  }

  TEST_CASE("what is gone is listed as lost, and made anew by the next call") {
    SessionWorld world;
    PutRecord(world, kId, "s", "running");
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    CHECK(world.manager->Get("s")->state == SessionState::kLost);
    CHECK(world.manager->Get("s")->reason == "the container is gone");
    CHECK_FALSE(Removed(world, kId));
    CHECK(world.MustOpen("s").identity.id != kId);
    CHECK(Removed(world, kId));
    CHECK(world.Recorded(kId) == "none");
  }

  TEST_CASE("what was cut short is removed") {
    SessionWorld world;
    PutRecord(world, kId, "s", "opening");
    PutRecord(world, "00000000000000bb", "t", "closing");
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    CHECK(Removed(world, kId));
    CHECK(Removed(world, "00000000000000bb"));
    CHECK(world.store->List()->empty());
    CHECK(world.manager->List().empty());
  }

  TEST_CASE("what could not be removed at start is tried again") {
    SessionWorld world;
    PutRecord(world, kId, "s", "closing");
    world.sandboxes.SetResults({}, {}, absl::UnavailableError("away"));
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    CHECK(world.Recorded(kId) == "closing");
    world.sandboxes.SetResults({}, {}, {});
    world.manager->Expire();
    CHECK(SessionWorld::Eventually([&] { return world.Recorded(kId) == "none"; }));
  }

  TEST_CASE("frozen stays frozen") {
    SessionWorld world;
    PutRecord(world, kId, "s", "frozen");
    LetLive(world, kId, SandboxState::kFrozen);
    // Somebody let this one go on meanwhile.
    PutRecord(world, "00000000000000bb", "t", "frozen");
    LetLive(world, "00000000000000bb", SandboxState::kRunning);
    // And of this one only the record is left.
    PutRecord(world, "00000000000000cc", "u", "frozen");
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    for (const char* key : {"s", "t", "u"}) {
      CAPTURE(key);
      CHECK(world.manager->Get(key)->state == SessionState::kFrozen);
      CHECK(world.manager->Get(key)->reason == "evidence");
      CHECK(absl::IsFailedPrecondition(world.OpenStatus(key)));
    }
    CHECK(world.sandboxes.living("00000000000000bb")->state() == SandboxState::kFrozen);
    world.clock.Move(std::chrono::hours(24 * 365));
    world.manager->Expire();
    CHECK(world.manager->List().size() == 3);
    CHECK(world.manager->Thaw("s", SessionWorld::Soon()).ok());
    CHECK(world.manager->Thaw("t", SessionWorld::Soon()).ok());
    const absl::Status nothing_left = world.manager->Thaw("u", SessionWorld::Soon());
    CHECK(absl::IsFailedPrecondition(nothing_left));
    CHECK(std::string(nothing_left.message()).find("--force") != std::string::npos);
    CHECK(world.manager->Close("u", true, SessionWorld::Soon()).ok());
  }

  TEST_CASE("a container that the store does not know is paused, listed and never removed") {
    SessionWorld world;
    const std::string container = AddContainer(world, kId);
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    const std::vector<UnknownContainer> unknown = world.manager->Unknown();
    REQUIRE(unknown.size() == 1);
    CHECK(unknown[0].container_id == container);
    CHECK(unknown[0].sandbox_id == kId);
    CHECK(unknown[0].paused);
    CHECK(world.engine.Containers().at(0).state == ContainerState::kPaused);
    CHECK_FALSE(Removed(world, kId));
  }

  TEST_CASE("another install's containers are left alone") {
    SessionWorld world;
    ContainerConfig config;
    config.name = "other";
    config.image = world.config.sandbox.image;
    config.labels = {{"creel.install", "ffffffffffffffff"}, {"creel.sandbox", kId}};
    const auto id = world.engine.CreateContainer(config, SessionWorld::Soon());
    REQUIRE(id.ok());
    REQUIRE(world.engine.StartContainer(*id, SessionWorld::Soon()).ok());
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    CHECK(world.manager->Unknown().empty());
    CHECK(world.engine.Containers().at(0).state == ContainerState::kRunning);
  }

  TEST_CASE("folders without record and container are removed, those of an unknown one are not") {
    SessionWorld world;
    const std::string with_container = "00000000000000bb";
    AddContainer(world, with_container);
    for (const std::string& id : {kId, with_container}) {
      std::filesystem::create_directories(SandboxPaths::For(world.config.paths, id).link_dir);
      std::filesystem::create_directories(SandboxPaths::For(world.config.paths, id).own_dir);
    }
    std::filesystem::create_directories(world.config.paths.run_dir + "/sandboxes/not-an-id");
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    CHECK(world.sandboxes.removed() == std::vector<std::string>{kId});
  }

  TEST_CASE("without an engine recovery fails and changes nothing") {
    SessionWorld world;
    PutRecord(world, kId, "s", "closing");
    world.engine.SetAway(true);
    CHECK(absl::IsUnavailable(world.manager->Recover(SessionWorld::Soon())));
    CHECK(world.Recorded(kId) == "closing");
    CHECK_FALSE(Removed(world, kId));
  }

  TEST_CASE("the engine's word that a container ended reaches its sandbox, with the reason") {
    SessionWorld world;
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    const std::string container = world.MustOpen("s").identity.container_id;
    world.engine.Exit(container, 137, /*oom_killed=*/true);
    CHECK(SessionWorld::Eventually(
        [&] { return world.manager->Get("s")->state == SessionState::kLost; }));
    CHECK(world.manager->Get("s")->reason ==
          "container ended with exit code 137, after a process in it ran out of memory");
  }

  TEST_CASE("what ended while the engine was not seen is found when it is back") {
    SessionWorld world;
    const SandboxIdentity gone = world.MustOpen("gone").identity;
    const SandboxIdentity ended = world.MustOpen("ended").identity;
    world.MustOpen("lives");
    REQUIRE(world.engine.RemoveContainer(gone.container_id, SessionWorld::Soon()).ok());
    world.engine.Exit(ended.container_id, 1);
    world.manager->Reconcile();
    CHECK(world.manager->Get("gone")->state == SessionState::kLost);
    CHECK(world.manager->Get("ended")->state == SessionState::kLost);
    CHECK(world.manager->Get("lives")->state == SessionState::kRunning);
    // An engine that does not answer says nothing of its containers.
    world.engine.SetAway(true);
    world.manager->Reconcile();
    CHECK(world.manager->Get("lives")->state == SessionState::kRunning);
  }

  TEST_CASE("one that died while it was frozen stays as it is, and cannot be thawed") {
    SessionWorld world;
    const std::string id = world.MustOpen("s").identity.id;
    REQUIRE(world.manager->Freeze("s", "evidence", SessionWorld::Soon()).ok());
    world.sandboxes.living(id)->ContainerGone("container was removed");
    const absl::Status thawed = world.manager->Thaw("s", SessionWorld::Soon());
    CHECK(absl::IsFailedPrecondition(thawed));
    CHECK(world.manager->Get("s")->state == SessionState::kFrozen);
    CHECK(world.Recorded(id) == "frozen");
    CHECK(world.manager->Close("s", true, SessionWorld::Soon()).ok());
  }

  TEST_CASE("a record that makes no sense does not stop the others") {
    SessionWorld world;
    SessionRecord record;
    record.sandbox_id = "../../etc";
    record.session = "bad";
    record.access = "none";
    record.state = "running";
    REQUIRE(world.store->Put(record).ok());
    PutRecord(world, kId, "s", "running");
    LetLive(world, kId, SandboxState::kRunning);
    REQUIRE(world.manager->Recover(SessionWorld::Soon()).ok());
    CHECK(world.manager->Get("s")->state == SessionState::kRunning);
    CHECK(absl::IsNotFound(world.manager->Get("bad").status()));
    CHECK(world.sandboxes.removed().empty());
  }
}

}  // namespace
}  // namespace creel
