#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "supervisor/session/policy_desk.h"
#include "supervisor/store/policy_store.h"
#include "supervisor/store/store.h"
#include "tests/supervisor/session/fake_sandboxes.h"

namespace creel {

// A desk with a real store and a clock that stands still.
class DeskWorld {
 public:
  explicit DeskWorld(const std::function<void(Config&)>& change = {}) {
    char folder[] = "/tmp/creel-desk-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    folder_ = folder;
    config.paths.state_dir = folder_;
    if (change) {
      change(config);
    }
    Restart();
  }
  ~DeskWorld() {
    desk.reset();
    policy_store.reset();
    store.reset();
    std::filesystem::remove_all(folder_);
  }

  // As after the end of the process, however it ended.
  void Restart() {
    desk.reset();
    policy_store.reset();
    store.reset();
    absl::StatusOr<std::unique_ptr<Store>> opened = Store::Open(folder_);
    REQUIRE(opened.ok());
    store = *std::move(opened);
    absl::StatusOr<std::unique_ptr<PolicyStore>> policy = PolicyStore::Open(folder_);
    REQUIRE(policy.ok());
    policy_store = *std::move(policy);
    absl::StatusOr<std::unique_ptr<PolicyDesk>> made =
        PolicyDesk::Create(config, *policy_store, clock);
    REQUIRE(made.ok());
    desk = *std::move(made);
  }

  Config config;
  FakeClock clock;
  std::unique_ptr<Store> store;
  std::unique_ptr<PolicyStore> policy_store;
  std::unique_ptr<PolicyDesk> desk;

 private:
  std::string folder_;
};

}  // namespace creel
