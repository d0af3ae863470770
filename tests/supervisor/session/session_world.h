#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/config/config.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/link_pool.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager_impl.h"
#include "supervisor/store/policy_store.h"
#include "supervisor/store/store.h"
#include "tests/fakes/fake_engine.h"
#include "tests/supervisor/session/fake_sandboxes.h"

namespace creel {

// A session manager with a real store, fake sandboxes, a fake engine and a clock that stands still.
class SessionWorld {
 public:
  explicit SessionWorld(const std::function<void(Config&)>& change = {}) {
    char folder[] = "/tmp/creel-session-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    folder_ = folder;
    config.paths.run_dir = folder_ + "/run";
    config.paths.state_dir = folder_ + "/state";
    // Most tests count what is made.
    config.sessions.warm_pool.automatic = false;
    if (change) {
      change(config);
    }
    absl::StatusOr<std::unique_ptr<LinkPool>> pool = LinkPool::Start();
    REQUIRE(pool.ok());
    pool_ = *std::move(pool);
    engine.AddImage(config.sandbox.image, {});
    Restart();
  }
  ~SessionWorld() {
    sandboxes.Release();
    manager.reset();
    desk.reset();
    policy_store.reset();
    store.reset();
    std::filesystem::remove_all(folder_);
  }

  // As after the end of the process, however it ended: only the store is left.
  void Restart() {
    manager.reset();
    desk.reset();
    policy_store.reset();
    host_.reset();
    store.reset();
    absl::StatusOr<std::unique_ptr<Store>> opened = Store::Open(config.paths.state_dir);
    REQUIRE(opened.ok());
    store = *std::move(opened);
    host_ = std::make_unique<Sandbox::Host>(Sandbox::Host{.engine = engine,
                                                          .links = *pool_,
                                                          .config = config,
                                                          .abilities = abilities_,
                                                          .install_id = store->install_id(),
                                                          .shim_path = "/nowhere/creel-shim",
                                                          .shim_sha256 = "00"});
    manager = std::make_unique<SessionManagerImpl>(*host_, *store, clock, sandboxes);
    absl::StatusOr<std::unique_ptr<PolicyStore>> policy = PolicyStore::Open(config.paths.state_dir);
    REQUIRE(policy.ok());
    policy_store = *std::move(policy);
    absl::StatusOr<std::unique_ptr<PolicyDesk>> made =
        PolicyDesk::Create(config, *policy_store, clock);
    REQUIRE(made.ok());
    desk = *std::move(made);
    manager->UseLevels(*desk);
  }

  // Opens `session` and returns its view.
  SessionView MustOpen(const std::string& session, const std::string& sender = "") {
    OpenOptions options;
    options.session = session;
    options.sender = sender;
    absl::StatusOr<std::pair<SessionView, bool>> opened = manager->Open(options, Soon());
    const std::string why(opened.status().message());
    CAPTURE(why);
    REQUIRE(opened.ok());
    return opened->first;
  }
  absl::Status OpenStatus(const std::string& session, const std::string& sender = "") {
    OpenOptions options;
    options.session = session;
    options.sender = sender;
    return manager->Open(options, Soon()).status();
  }
  static Deadline Soon() { return After(std::chrono::seconds(10)); }
  // What the store has, as "state" of the record; "none" without one.
  std::string Recorded(const std::string& id) {
    const absl::StatusOr<std::vector<SessionRecord>> records = store->List();
    REQUIRE(records.ok());
    for (const SessionRecord& record : *records) {
      if (record.sandbox_id == id) {
        return record.state;
      }
    }
    return "none";
  }
  // Waits until `holds`, as things happen on other threads.
  static bool Eventually(const std::function<bool()>& holds) {
    const Deadline until = Soon();
    while (!holds()) {
      if (std::chrono::steady_clock::now() > until) {
        return false;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  Sandbox::Host host() const { return *host_; }

  Config config;
  FakeClock clock;
  FakeEngine engine;
  FakeSandboxes sandboxes;
  std::unique_ptr<Store> store;
  std::unique_ptr<PolicyStore> policy_store;
  std::unique_ptr<PolicyDesk> desk;
  std::unique_ptr<SessionManagerImpl> manager;

 private:
  std::string folder_;
  HostAbilities abilities_;
  std::unique_ptr<LinkPool> pool_;
  std::unique_ptr<Sandbox::Host> host_;
};

}  // namespace creel
