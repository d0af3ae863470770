#include "supervisor/incident/incident_manager.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "supervisor/sandbox/link_pool.h"
#include "tests/fakes/fake_engine.h"
#include "tests/supervisor/incident/still_sessions.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kSoon{20};

// Holds whoever comes until it is opened.
class Door {
 public:
  void Pass() {
    came_.store(true);
    opened_.wait();
  }
  void Open() { open_.set_value(); }
  // Waits until somebody stands before it.
  bool Busy() const {
    for (int i = 0; i < 2000 && !came_.load(); ++i) {
      std::this_thread::sleep_for(milliseconds(10));
    }
    return came_.load();
  }

 private:
  std::atomic<bool> came_{false};
  std::promise<void> open_;
  std::shared_future<void> opened_{open_.get_future()};
};

// An incident manager with a real store and record, over sessions in memory.
class IncidentWorld {
 public:
  IncidentWorld() {
    char pattern[] = "/tmp/creel-incidents-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    top_ = pattern;
    config_.paths.state_dir = top_;
    config_.paths.run_dir = top_ + "/run";
    auto links = LinkPool::Start();
    auto store = Store::Open(top_);
    REQUIRE(links.ok());
    REQUIRE(store.ok());
    links_ = *std::move(links);
    store_ = *std::move(store);
    auto audit = AuditLog::Open({.directory = top_ + "/record", .install_id = "i"}, clock_);
    REQUIRE(audit.ok());
    audit_ = *std::move(audit);
    host_ = std::make_unique<Sandbox::Host>(Sandbox::Host{.engine = engine_,
                                                          .links = *links_,
                                                          .config = config_,
                                                          .abilities = abilities_,
                                                          .install_id = "i",
                                                          .shim_path = "/nowhere/creel-shim",
                                                          .shim_sha256 = "00"});
    auto made = IncidentManager::Create({.evidence = {.sessions = sessions,
                                                      .audit = *audit_,
                                                      .engine = engine_,
                                                      .config = config_,
                                                      .abilities = abilities_,
                                                      .clock = clock_,
                                                      .install_id = "i"},
                                         .store = *store_,
                                         .host = *host_,
                                         .cut =
                                             [this](const std::string& sandbox, const auto&) {
                                               MutexLock hold(mu_);
                                               cuts_.insert(sandbox);
                                             },
                                         .restore =
                                             [this](const std::string& sandbox) {
                                               if (on_restore) {
                                                 on_restore();
                                               }
                                               MutexLock hold(mu_);
                                               cuts_.erase(sandbox);
                                             }});
    REQUIRE(made.ok());
    manager = *std::move(made);
  }
  ~IncidentWorld() {
    manager.reset();
    audit_.reset();
    store_.reset();
    std::filesystem::remove_all(top_);
  }

  // Opens one about a session, or about all, without evidence; returns its id.
  std::string Open(const std::string& session) {
    const auto opened =
        manager->Open({.scope = session.empty() ? HoldRule::Scope::kAll : HoldRule::Scope::kSession,
                       .who = session,
                       .reason = "a test",
                       .capture = false});
    return opened.ok() ? opened->incident.id : std::string(opened.status().message());
  }
  std::set<std::string> cuts() {
    MutexLock hold(mu_);
    return cuts_;
  }

  StillSessions sessions;
  std::function<void()> on_restore;
  std::unique_ptr<IncidentManager> manager;

 private:
  std::string top_;
  SystemClock clock_;
  Config config_;
  HostAbilities abilities_{};
  FakeEngine engine_;
  std::unique_ptr<LinkPool> links_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<Sandbox::Host> host_;
  Mutex mu_;
  std::set<std::string> cuts_ ABSL_GUARDED_BY(mu_);
};

// What runs on another thread, and whether it has an answer soon.
template <typename Work>
auto Beside(Work work) {
  return std::async(std::launch::async, std::move(work));
}
template <typename T>
bool Answers(std::future<T>& work) {
  return work.wait_for(kSoon) == std::future_status::ready;
}
template <typename T>
bool Waits(std::future<T>& work) {
  return work.wait_for(milliseconds(200)) == std::future_status::timeout;
}

TEST_SUITE("IncidentManager") {
  TEST_CASE("evidence that takes long holds no other incident up") {
    IncidentWorld world;
    for (const char* session : {"a", "b", "c", "d"}) {
      world.sessions.Add(session);
    }
    Door door;
    world.sessions.OnFind([&door](const std::string& session) {
      if (session == "a") {
        door.Pass();
      }
    });
    const std::string a = world.Open("a");
    const std::string b = world.Open("b");
    const std::string c = world.Open("c");
    auto capture = Beside([&] { return world.manager->Capture(a).status(); });
    REQUIRE(door.Busy());
    auto thaw = Beside([&] { return world.manager->Thaw(b).status(); });
    auto open = Beside([&] { return world.Open("d"); });
    auto evidence = Beside([&] { return world.manager->Capture(c).status(); });
    CHECK(Answers(thaw));
    CHECK(Answers(open));
    CHECK(Answers(evidence));
    auto teardown = Beside([&] { return world.manager->Teardown(c, false).status(); });
    CHECK(Answers(teardown));
    // What is about all shuts the gate too, whatever else is going on.
    auto all = Beside([&] { return world.Open(""); });
    CHECK(Answers(all));
    CHECK_FALSE(world.sessions.Held("b").ok());
    CHECK(capture.wait_for(seconds(0)) == std::future_status::timeout);
    door.Open();
    CHECK(capture.get().ok());
    CHECK(thaw.get().ok());
    CHECK(open.get() == "4");
    CHECK(evidence.get().ok());
    CHECK(teardown.get().ok());
    CHECK(all.get() == "5");
    CHECK_FALSE(world.sessions.Get("c").ok());
  }

  TEST_CASE("what is done with one incident takes turns") {
    IncidentWorld world;
    world.sessions.Add("a");
    Door door;
    world.sessions.OnFind([&door](const std::string&) { door.Pass(); });
    const std::string a = world.Open("a");
    auto capture = Beside([&] { return world.manager->Capture(a).status(); });
    REQUIRE(door.Busy());
    auto thaw = Beside([&] { return world.manager->Thaw(a).status(); });
    auto again = Beside([&] { return world.manager->Capture("00" + a).status(); });
    CHECK(Waits(thaw));
    CHECK(Waits(again));
    CHECK_FALSE(world.sessions.Runs("a"));
    door.Open();
    CHECK(capture.get().ok());
    CHECK(thaw.get().ok());
    CHECK(again.get().ok());
    CHECK(world.sessions.Runs("a"));
    CHECK(world.manager->Get(a)->bundles.size() == 2);
  }

  TEST_CASE("nothing is removed while another incident's evidence of it is collected") {
    IncidentWorld world;
    world.sessions.Add("a");
    world.sessions.Add("b");
    Door door;
    std::atomic<bool> held{true};
    world.sessions.OnFind([&](const std::string& session) {
      if (session == "a" && held.exchange(false)) {
        door.Pass();
      }
    });
    const std::string a = world.Open("a");
    auto capture = Beside([&] { return world.manager->Capture(a).status(); });
    REQUIRE(door.Busy());
    auto panic = Beside([&] {
      return world.manager->Open({.reason = "a test", .capture = true, .teardown = true}).status();
    });
    CHECK(Waits(panic));
    CHECK_FALSE(world.sessions.Held("b").ok());
    door.Open();
    CHECK(capture.get().ok());
    CHECK(panic.get().ok());
    CHECK_FALSE(world.sessions.Get("a").ok());
    CHECK_FALSE(world.sessions.Get("b").ok());
  }

  TEST_CASE("whoever ends last lets go on what two incidents are about") {
    for (int i = 0; i < 20; ++i) {
      IncidentWorld world;
      world.sessions.Add("a");
      const std::string one = world.Open("a");
      const std::string two = world.Open("");
      auto first = Beside([&] { return world.manager->Thaw(one).status(); });
      auto second = Beside([&] { return world.manager->Thaw(two).status(); });
      CHECK(first.get().ok());
      CHECK(second.get().ok());
      CHECK(world.sessions.Runs("a"));
      CHECK(world.sessions.Held("a").ok());
      CHECK(world.cuts().empty());
    }
  }

  TEST_CASE("what goes on as another incident is being opened stands still again") {
    IncidentWorld world;
    world.sessions.Add("a");
    world.sessions.Add("b");
    const std::string one = world.Open("a");
    Door door;
    world.sessions.OnFreeze([&door](const std::string& session) {
      if (session == "b") {
        door.Pass();
      }
    });
    auto open = Beside([&] { return world.Open(""); });
    REQUIRE(door.Busy());
    CHECK(world.manager->Thaw(one).ok());
    door.Open();
    const std::string two = open.get();
    CHECK_FALSE(world.sessions.Runs("a"));
    CHECK_FALSE(world.sessions.Runs("b"));
    CHECK(world.cuts().contains("a"));
    // It is the second's now, to let it go on.
    CHECK(world.manager->Thaw(two).ok());
    CHECK(world.sessions.Runs("a"));
    CHECK(world.sessions.Runs("b"));
  }

  TEST_CASE("what an incident has cut stays cut though another ends that moment") {
    IncidentWorld world;
    world.sessions.Add("a");
    const std::string one = world.Open("");
    bool opened = false;
    world.on_restore = [&] {
      if (!std::exchange(opened, true)) {
        world.Open("");
      }
    };
    CHECK(world.manager->Thaw(one).ok());
    CHECK(opened);
    CHECK(world.cuts().contains(""));
    CHECK(world.cuts().contains("a"));
    CHECK_FALSE(world.sessions.Runs("a"));
  }
}

}  // namespace
}  // namespace creel
