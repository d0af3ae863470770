#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/types.h>

#include <chrono>
#include <fstream>
#include <string>

#include "tests/integration/support/process.h"

namespace creel::testing {

// A second engine with everything it keeps in a folder of its own, as the machine's serves others.
class PrivateEngine {
 public:
  // `live_restore`: its containers outlive it.
  explicit PrivateEngine(bool live_restore = false) {
    std::string pattern = "/run/creel-engine-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    dir_ = pattern;
    if (live_restore) {
      environment_.emplace_back("CREEL_PRIVATE_LIVE_RESTORE=1");
    }
    Start();
  }
  ~PrivateEngine() { RunProgram({kScript, "stop-private", dir_}, "", std::chrono::seconds(60)); }
  PrivateEngine(const PrivateEngine&) = delete;
  PrivateEngine& operator=(const PrivateEngine&) = delete;

  void Start() {
    const Finished started = RunProgram({kScript, "start-private", dir_, "creel-sandbox:latest"},
                                        "", std::chrono::seconds(170), environment_);
    CAPTURE(started.err);
    REQUIRE(started.exit_code == 0);
  }
  [[nodiscard]] std::string host() const { return "unix://" + dir_ + "/docker.sock"; }
  [[nodiscard]] pid_t pid() const {
    pid_t pid = 0;
    std::ifstream(pid_file()) >> pid;
    return pid;
  }
  // Removed by the engine when it has stopped.
  [[nodiscard]] std::string pid_file() const { return dir_ + "/dockerd.pid"; }

 private:
  static constexpr char kScript[] = CREEL_TEST_SOURCES "/docker/setup/engine.sh";
  std::string dir_;
  std::vector<std::string> environment_;
};

}  // namespace creel::testing
