#include "supervisor/session/session_manager.h"

#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/supervisor/session/session_world.h"

namespace creel {
namespace {

const std::string kGroup = "agent:main:whatsapp:group:1";

bool Says(const absl::Status& status, std::string_view text) {
  return std::string(status.message()).find(text) != std::string::npos;
}

TEST_SUITE("SessionManager") {
  TEST_CASE("the first call opens, the next finds it at once") {
    SessionWorld world;
    std::shared_ptr<Sandbox> first;
    std::atomic<bool> came{false};
    world.manager->Acquire({.session = kGroup, .sender = "whatsapp:1"},
                           [&](absl::StatusOr<std::shared_ptr<Sandbox>> sandbox) {
                             REQUIRE(sandbox.ok());
                             first = *sandbox;
                             came = true;
                           });
    REQUIRE(SessionWorld::Eventually([&] { return came.load(); }));
    bool inline_call = false;
    world.manager->Acquire({.session = kGroup},
                           [&](absl::StatusOr<std::shared_ptr<Sandbox>> sandbox) {
                             REQUIRE(sandbox.ok());
                             CHECK(sandbox->get() == first.get());
                             inline_call = true;
                           });
    CHECK(inline_call);
    CHECK(world.sandboxes.created().size() == 1);
    const SandboxIdentity& identity = first->identity();
    CHECK(identity.id.size() == 16);
    CHECK(identity.key.size() == 32);
    CHECK(identity.tool_uid >= world.config.sandbox.tool_uid_base);
    CHECK(identity.image == "creel-sandbox:latest");
    CHECK(world.Recorded(identity.id) == "running");
    const auto view = world.manager->Get(kGroup);
    REQUIRE(view.ok());
    CHECK(view->state == SessionState::kRunning);
    CHECK(view->sender == "whatsapp:1");
    CHECK(world.manager->Get(identity.id)->session == kGroup);
    CHECK(world.manager->Find(kGroup)->get() == first.get());
  }

  TEST_CASE("calls that come together wait for one opening, and the record comes before it") {
    SessionWorld world;
    world.sandboxes.Hold();
    std::atomic<int> good{0};
    std::set<Sandbox*> seen;
    Mutex mu;
    for (int i = 0; i < 50; ++i) {
      world.manager->Acquire({.session = kGroup},
                             [&](absl::StatusOr<std::shared_ptr<Sandbox>> sandbox) {
                               REQUIRE(sandbox.ok());
                               MutexLock hold(mu);
                               seen.insert(sandbox->get());
                               ++good;
                             });
    }
    world.sandboxes.AwaitCreating(1);
    CHECK(good == 0);
    const std::string id = world.sandboxes.created().at(0).id;
    CHECK(world.Recorded(id) == "opening");
    CHECK(world.manager->Get(kGroup)->state == SessionState::kOpening);
    world.sandboxes.Release();
    REQUIRE(SessionWorld::Eventually([&] { return good == 50; }));
    CHECK(seen.size() == 1);
    CHECK(world.sandboxes.created().size() == 1);
  }

  TEST_CASE("an opening that fails tells all who wait and leaves no record") {
    SessionWorld world;
    world.sandboxes.SetResults(absl::NotFoundError("the image is not on this host"), {}, {});
    CHECK(absl::IsNotFound(world.OpenStatus(kGroup)));
    const std::string id = world.sandboxes.created().at(0).id;
    CHECK(world.Recorded(id) == "none");
    CHECK(world.sandboxes.removed().empty());
    CHECK(absl::IsNotFound(world.manager->Get(kGroup).status()));
    // When the engine went away in between, whatever may be there is removed.
    world.sandboxes.SetResults(absl::UnavailableError("the engine went away"), {}, {});
    CHECK(absl::IsUnavailable(world.OpenStatus(kGroup)));
    CHECK(world.sandboxes.removed().size() == 1);
    CHECK(world.Recorded(world.sandboxes.created().at(1).id) == "none");
    // And if that does not work, it is kept in mind until it does.
    world.sandboxes.SetResults(absl::UnavailableError("the engine went away"), {},
                               absl::UnavailableError("still away"));
    CHECK(absl::IsUnavailable(world.OpenStatus(kGroup)));
    const std::string left = world.sandboxes.created().at(2).id;
    CHECK(world.Recorded(left) == "closing");
    REQUIRE(world.manager->List().size() == 1);
    CHECK(world.manager->List()[0].state == SessionState::kClosing);
    world.sandboxes.SetResults({}, {}, {});
    world.manager->Expire();
    CHECK(SessionWorld::Eventually([&] { return world.Recorded(left) == "none"; }));
    CHECK(SessionWorld::Eventually([&] { return world.manager->List().empty(); }));
  }

  TEST_CASE("what cannot be opened is refused with the reason") {
    SessionWorld world([](Config& config) {
      config.sandbox.workspace_access = WorkspaceAccess::kReadOnly;
      config.sandbox.workspace_roots = {"/home"};
    });
    const struct {
      OpenOptions options;
      absl::StatusCode code;
      const char* says;
    } kRows[] = {
        {{.session = ""}, absl::StatusCode::kInvalidArgument, "session key is empty"},
        {{.session = "a\nb"}, absl::StatusCode::kInvalidArgument, "control characters"},
        {{.session = "x", .sender = "\xff"}, absl::StatusCode::kInvalidArgument, "not UTF-8"},
        {{.session = "agent:main:main"},
         absl::StatusCode::kFailedPrecondition,
         "runs on the host by policy"},
        {{.session = "x", .access = WorkspaceAccess::kReadOnly},
         absl::StatusCode::kInvalidArgument,
         "needs a workspace folder"},
        {{.session = "x", .workspace = "/home/w", .access = WorkspaceAccess::kNone},
         absl::StatusCode::kInvalidArgument,
         "together with workspace access none"},
        {{.session = "x", .workspace = "/home/w", .access = WorkspaceAccess::kReadWrite},
         absl::StatusCode::kInvalidArgument,
         "more than sandbox.workspace_access (ro) allows"},
        {{.session = "x", .env = {{"A=B", "x"}}},
         absl::StatusCode::kInvalidArgument,
         "the variable 'A=B'"},
        {{.session = "x", .env = {{"A", std::string("x\0y", 3)}}},
         absl::StatusCode::kInvalidArgument,
         "the variable 'A'"},
        {{.session = "x", .env = {{"A", std::string(70'000, 'x')}}},
         absl::StatusCode::kInvalidArgument,
         "at most 65536"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.says);
      const absl::Status refused = world.manager->Open(row.options, SessionWorld::Soon()).status();
      CAPTURE(refused.message().data());
      CHECK(refused.code() == row.code);
      CHECK(Says(refused, row.says));
    }
    CHECK(world.sandboxes.created().empty());
    CHECK(world.manager->List().empty());
  }

  TEST_CASE("opening again with what does not fit names the difference") {
    SessionWorld world([](Config& config) {
      config.sandbox.workspace_access = WorkspaceAccess::kReadWrite;
      config.sandbox.env = {{"TZ", "UTC"}};
    });
    const OpenOptions options{.session = kGroup,
                              .sender = "",
                              .workspace = "/home",
                              .access = WorkspaceAccess::kReadOnly,
                              .env = {{"A", "1"}}};
    const auto first = world.manager->Open(options, SessionWorld::Soon());
    REQUIRE(first.ok());
    CHECK(first->second);
    CHECK(first->first.identity.env ==
          std::map<std::string, std::string>{{"A", "1"}, {"TZ", "UTC"}});
    const auto again = world.manager->Open(options, SessionWorld::Soon());
    REQUIRE(again.ok());
    CHECK_FALSE(again->second);
    // Fewer wishes, or the same in other words, fit.
    CHECK(world.OpenStatus(kGroup).ok());
    OpenOptions other = options;
    other.workspace = "/home/../home/";
    CHECK(world.manager->Open(other, SessionWorld::Soon()).ok());
    const auto differs = [&](const OpenOptions& wish, const char* what) {
      const absl::Status refused = world.manager->Open(wish, SessionWorld::Soon()).status();
      CHECK(refused.code() == absl::StatusCode::kAlreadyExists);
      CHECK(Says(refused, what));
    };
    other = options;
    other.workspace = "/srv";
    differs(other, "workspace '/home'");
    other = options;
    other.access = WorkspaceAccess::kReadWrite;
    differs(other, "workspace access 'ro'");
    other = options;
    other.env["A"] = "2";
    differs(other, "the variable 'A'");
  }

  TEST_CASE("limits hold: in all, for one sender, and by the minute") {
    SessionWorld world([](Config& config) {
      config.sessions.max = 4;
      config.sessions.max_per_sender = 2;
      config.sessions.opens_per_minute = 5;
    });
    CHECK(world.OpenStatus("s1", "a").ok());
    CHECK(world.OpenStatus("s2", "a").ok());
    CHECK(Says(world.OpenStatus("s3", "a"), "max_per_sender"));
    CHECK(world.OpenStatus("s3", "b").ok());
    CHECK(world.OpenStatus("s4", "").ok());
    CHECK(Says(world.OpenStatus("s5", "c"), "sessions.max "));
    CHECK(world.OpenStatus("s1", "c").ok());  // open already
    REQUIRE(world.manager->Close("s1", false, SessionWorld::Soon()).ok());
    CHECK(world.OpenStatus("s5", "a").ok());
    REQUIRE(world.manager->Close("s5", false, SessionWorld::Soon()).ok());
    CHECK(Says(world.OpenStatus("s6", "a"), "opens_per_minute"));
    world.clock.Move(std::chrono::seconds(12));
    CHECK(world.OpenStatus("s6", "a").ok());
    SessionsConfig limits = world.config.sessions;
    limits.max = 10;
    limits.opens_per_minute = 100;
    world.manager->SetLimits(limits);
    world.clock.Move(std::chrono::seconds(60));
    CHECK(world.OpenStatus("s7", "c").ok());
  }

  TEST_CASE("each sandbox has a tool uid of its own, used again only when it is free") {
    SessionWorld world([](Config& config) { config.sandbox.tool_uid_count = 3; });
    std::set<uint32_t> uids;
    for (const char* key : {"s1", "s2", "s3"}) {
      uids.insert(world.MustOpen(key).identity.tool_uid);
    }
    CHECK(uids.size() == 3);
    CHECK(absl::IsResourceExhausted(world.OpenStatus("s4")));
    const uint32_t freed = world.manager->Get("s2")->identity.tool_uid;
    REQUIRE(world.manager->Close("s2", false, SessionWorld::Soon()).ok());
    CHECK(world.MustOpen("s4").identity.tool_uid == freed);
  }

  TEST_CASE("a scope wider than the session shares one sandbox") {
    SessionWorld world([](Config& config) { config.sandbox.scope = SandboxScope::kAgent; });
    const SessionView one = world.MustOpen("agent:work:a");
    CHECK(world.MustOpen("agent:work:b").identity.id == one.identity.id);
    CHECK(world.MustOpen("agent:play:a").identity.id != one.identity.id);
    CHECK(world.manager->Get("agent:work:c")->identity.id == one.identity.id);
    CHECK(world.manager->List().size() == 2);
  }

  TEST_CASE("a lost sandbox is removed and made anew with the settings it had") {
    SessionWorld world(
        [](Config& config) { config.sandbox.workspace_access = WorkspaceAccess::kReadWrite; });
    const auto opened = world.manager->Open({.session = kGroup,
                                             .sender = "a",
                                             .workspace = "/home",
                                             .access = WorkspaceAccess::kReadWrite,
                                             .env = {{"A", "1"}}},
                                            SessionWorld::Soon());
    REQUIRE(opened.ok());
    const SandboxIdentity old = opened->first.identity;
    world.sandboxes.living(old.id)->ContainerGone("container ended with exit code 137");
    CHECK(world.manager->Get(kGroup)->state == SessionState::kLost);
    CHECK(world.manager->Get(kGroup)->reason == "container ended with exit code 137");
    std::shared_ptr<Sandbox> fresh;
    std::atomic<bool> came{false};
    world.manager->Acquire({.session = kGroup, .sender = "b"},
                           [&](absl::StatusOr<std::shared_ptr<Sandbox>> sandbox) {
                             REQUIRE(sandbox.ok());
                             fresh = *sandbox;
                             came = true;
                           });
    REQUIRE(SessionWorld::Eventually([&] { return came.load(); }));
    CHECK(fresh->identity().id != old.id);
    CHECK(fresh->identity().key != old.key);
    CHECK(fresh->identity().workspace == "/home");
    CHECK(fresh->identity().access == WorkspaceAccess::kReadWrite);
    CHECK(fresh->identity().env == old.env);
    CHECK(world.manager->Get(kGroup)->sender == "a");
    CHECK(world.Recorded(old.id) == "none");
    CHECK(world.sandboxes.living(old.id)->state() == SandboxState::kClosed);
    CHECK(absl::IsNotFound(world.manager->Get(old.id).status()));
  }

  TEST_CASE("an unknown session is not found, and near keys are named") {
    SessionWorld world;
    world.MustOpen(kGroup);
    const absl::Status near = world.manager->Get("agent:main:whatsapp:group:2").status();
    CHECK(absl::IsNotFound(near));
    CHECK(Says(near, "did you mean 'agent:main:whatsapp:group:1'?"));
    CHECK(Says(world.manager->Find("zzz").status(), "creel ps lists them"));
  }

  TEST_CASE("stopping ends what waits, and containers stay") {
    SessionWorld world;
    const SessionView open = world.MustOpen(kGroup);
    world.manager->Stop();
    CHECK(absl::IsUnavailable(world.OpenStatus("s2")));
    CHECK(world.Recorded(open.identity.id) == "running");
    CHECK(world.sandboxes.living(open.identity.id)->state() == SandboxState::kRunning);
    CHECK(world.sandboxes.removed().empty());
  }

  TEST_CASE("threads that open, call and close at once leave nothing inconsistent") {
    SessionWorld world([](Config& config) {
      config.sessions.opens_per_minute = 60'000;
      config.sessions.max = 1000;
    });
    std::atomic<int> answers{0};
    std::vector<std::thread> threads;
    constexpr int kThreads = 4;
    constexpr int kRounds = 200;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kRounds; ++i) {
          const std::string key = "s" + std::to_string((t + i) % 5);
          world.manager->Acquire({.session = key},
                                 [&](const absl::StatusOr<std::shared_ptr<Sandbox>>& sandbox) {
                                   CHECK(sandbox.ok());
                                   ++answers;
                                 });
          if (i % 7 == 0) {
            static_cast<void>(world.manager->Close(key, false, SessionWorld::Soon()));
          }
          if (i % 11 == 0) {
            static_cast<void>(world.manager->List());
            world.manager->Expire();
          }
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(SessionWorld::Eventually([&] { return answers == kThreads * kRounds; }));
    std::vector<SessionView> open = world.manager->List();
    CHECK(open.size() <= 5);
    for (const SessionView& view : open) {
      CHECK(world.manager->Close(view.session, false, SessionWorld::Soon()).ok());
    }
    CHECK(world.store->List()->empty());
  }
}

}  // namespace
}  // namespace creel
