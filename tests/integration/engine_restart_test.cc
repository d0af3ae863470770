// The engine is restarted under load: sessions come back or are reported lost, and no call hangs.
#include <doctest/doctest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/support/incidents.h"
#include "tests/integration/support/private_engine.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

using Steady = std::chrono::steady_clock;
using std::chrono::seconds;

constexpr int kSessions = 6;

std::string Session(int i) { return "agent:main:dm:" + std::to_string(i); }

// What callers saw while the engine went and came.
struct Load {
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0};
  std::atomic<int> failed{0};
  // The longest call that did not end as it should, and any other, in milliseconds.
  std::atomic<int64_t> longest{0};
  std::atomic<int> hung{0};
};

// Calls one session after the other until told to stop. A call that does not end by itself is
// ended by its deadline, and counts as hung.
void Call(Supervisor& supervisor, int first, Load& load) {
  for (int i = first; !load.stop; i = (i + 1) % kSessions) {
    const auto began = Steady::now();
    const Outcome outcome =
        supervisor.Exec(Session(i), {"sh", "-c", "sleep 0.02"}, {}, "", seconds(90));
    const auto took =
        std::chrono::duration_cast<std::chrono::milliseconds>(Steady::now() - began).count();
    ++load.calls;
    load.failed += outcome.code() == 0 ? 0 : 1;
    load.hung += outcome.status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ? 1 : 0;
    int64_t longest = load.longest;
    while (longest < took && !load.longest.compare_exchange_weak(longest, took)) {
    }
    if (outcome.code() != 0) {
      // What fails fails at once; nobody calls again at that rate.
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
}

void RestartUnderLoad(bool live_restore) {
  CAPTURE(live_restore);
  PrivateEngine engine(live_restore);
  Supervisor supervisor({.engine_host = engine.host(),
                         .sandbox_config = "  limits:\n    memory: 64MiB\n    tmp: 8MiB\n"
                                           "    run: 4MiB\n    shm: 8MiB\n    workspace: 16MiB\n"});
  for (int i = 0; i < kSessions; ++i) {
    REQUIRE(
        supervisor.Shell(Session(i), "echo kept > kept; sleep 1000 >/dev/null 2>&1 &", seconds(120))
            .code() == 0);
  }
  const std::string before = supervisor.Get(Session(0)).container_id();
  Load load;
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&, c] { Call(supervisor, c * 2, load); });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  kill(engine.pid(), SIGTERM);
  CHECK(Eventually([&] { return !std::filesystem::exists(engine.pid_file()); }, seconds(90)));
  engine.Start();
  // Every session serves again, be it the old sandbox or a new one.
  for (int i = 0; i < kSessions; ++i) {
    CAPTURE(i);
    CHECK(Eventually(
        [&] { return supervisor.Exec(Session(i), {"true"}, {}, "", seconds(60)).code() == 0; },
        seconds(120)));
  }
  load.stop = true;
  for (std::thread& caller : callers) {
    caller.join();
  }
  MESSAGE("live_restore=" << live_restore << " calls=" << load.calls << " failed=" << load.failed
                          << " longest_ms=" << load.longest);
  CHECK(load.hung == 0);
  CHECK(load.calls > 0);
  const std::string after = supervisor.Get(Session(0)).container_id();
  Operators operators(supervisor);
  operator_::v1::ReadRecordRequest lost;
  lost.set_event("session.lost");
  if (live_restore) {
    // They never ended.
    CHECK(after == before);
    CHECK(supervisor.Read(Session(0), "kept").second == "kept\n");
    CHECK(operators.Lines(lost).empty());
  } else {
    // Their end was told, and the next call got a new one.
    CHECK(after != before);
    CHECK(operators.Lines(lost).size() >= 1);
  }
  CHECK(operators.Verify().sound());
  // Nothing but what serves is left.
  CHECK(Eventually([&] { return ContainersOf(supervisor).size() == kSessions; }, seconds(90)));
}

TEST_SUITE("EngineRestart") {
  TEST_CASE("without live-restore sessions are reported lost and made anew; no call hangs") {
    RestartUnderLoad(false);
  }

  TEST_CASE("with live-restore sessions go on as they were; no call hangs") {
    RestartUnderLoad(true);
  }

  TEST_CASE("what could not be removed while the engine was away goes when it is back") {
    PrivateEngine engine;
    Supervisor supervisor({.engine_host = engine.host()});
    REQUIRE(supervisor.Shell(Session(0), "echo x > f").code() == 0);
    kill(engine.pid(), SIGKILL);
    CHECK(Eventually([&] { return kill(engine.pid(), 0) != 0; }, seconds(30)));
    // Closed as far as callers can see.
    CHECK_FALSE(supervisor.Close(Session(0)).ok());
    CHECK(Eventually([&] { return supervisor.Get(Session(0)).sandbox_id().empty(); }, seconds(60)));
    engine.Start();
    CHECK(Eventually([&] { return ContainersOf(supervisor).empty(); }, seconds(90)));
    CHECK(Eventually(
        [&] {
          return std::filesystem::is_empty(supervisor.run_dir() + "/sandboxes") &&
                 std::filesystem::is_empty(supervisor.state_dir() + "/sandboxes") &&
                 MountsWith(supervisor.dir() + "/").empty() &&
                 ListeningSockets(supervisor.run_dir() + "/sandboxes").empty();
        },
        seconds(60)));
  }
}

}  // namespace
}  // namespace creel::testing
