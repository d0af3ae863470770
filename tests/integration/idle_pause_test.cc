// Sandboxes that nobody calls stand still, and go on with the next call.
#include <doctest/doctest.h>
#include <signal.h>

#include <thread>

#include "supervisor/sandbox/cgroups.h"
#include "tests/integration/support/pool.h"

namespace creel::testing {
namespace {

constexpr char kSession[] = "agent:main:dm:1";

SupervisorOptions After(const std::string& more) {
  return {.extra_config = "sessions:\n  warm_pool: {size: 0}\n  pause_after: 1s\n" + more,
          .sandbox_config = "  limits:\n    workspace: 16MiB\n"};
}

Living Container(Supervisor& supervisor) { return Look(supervisor.Get(kSession).container_id()); }

bool BecomesPaused(Supervisor& supervisor) {
  return Eventually([&] { return Container(supervisor).paused; }, std::chrono::seconds(60));
}

bool StandsStill(int pid) {
  const auto groups = ContainerCgroups::OfProcess(pid, "/sys/fs/cgroup");
  if (!groups.ok()) {
    return false;
  }
  const auto frozen = groups->IsFrozen();
  return frozen.ok() && *frozen;
}

TEST_SUITE("IdlePause") {
  TEST_CASE("one that nobody calls is paused, as the engine shows; the next call is answered") {
    Supervisor supervisor(After(""));
    REQUIRE(supervisor.Write(kSession, "kept", "here").ok());
    for (int i = 0; i < 3; ++i) {
      REQUIRE(BecomesPaused(supervisor));
      CHECK(StandsStill(Container(supervisor).pid));
      CHECK(supervisor.Creel({"inspect", kSession}).out.find("paused") != std::string::npos);
      CHECK(supervisor.Read(kSession, "kept").second == "here");
      CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
      // The engine hears of it a little later.
      const bool heard = Eventually([&] { return !Container(supervisor).paused; });
      const std::string log = supervisor.Log();
      CAPTURE(log);
      CHECK(heard);
    }
    // A paused one is closed like any other.
    REQUIRE(BecomesPaused(supervisor));
    CHECK(supervisor.Close(kSession).ok());
    CHECK(ContainersOf(supervisor).empty());
  }

  TEST_CASE("a process in the background keeps it awake, unless the rule says otherwise") {
    {
      Supervisor supervisor(After(""));
      // Its command has ended, and it left its session: it is found all the same.
      REQUIRE(supervisor
                  .Shell(kSession,
                         "setsid sh -c 'while :; do date +%s%N > tick; sleep 0.1; done' "
                         ">/dev/null 2>&1 &")
                  .code() == 0);
      std::this_thread::sleep_for(std::chrono::seconds(6));
      CHECK_FALSE(Container(supervisor).paused);
      REQUIRE(supervisor.Shell(kSession, "kill -9 -1; true").status.ok());
      CHECK(BecomesPaused(supervisor));
    }
    Supervisor supervisor(After("  pause_running: true\n"));
    REQUIRE(supervisor
                .Shell(kSession,
                       "sh -c 'while :; do date +%s%N > tick; sleep 0.1; done' >/dev/null 2>&1 &")
                .code() == 0);
    REQUIRE(BecomesPaused(supervisor));
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const std::string before = supervisor.Read(kSession, "tick").second;
    CHECK(Eventually([&] {
      const auto [status, now] = supervisor.Read(kSession, "tick");
      return status.ok() && !now.empty() && now != before;
    }));
  }

  TEST_CASE(
      "a frozen one is not let go on by a call, whether it was paused before or just resumed") {
    Supervisor supervisor(After(""));
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    for (const bool resumed_first : {false, true}) {
      CAPTURE(resumed_first);
      REQUIRE(BecomesPaused(supervisor));
      if (resumed_first) {
        // At once, while the engine may still take it for paused.
        REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
      }
      const Finished frozen = supervisor.Creel({"freeze", kSession, "--reason", "to be looked at"});
      CAPTURE(frozen.err);
      REQUIRE(frozen.exit_code == 0);
      const int pid = Container(supervisor).pid;
      for (int i = 0; i < 3; ++i) {
        CHECK(supervisor.Exec(kSession, {"true"}).status.error_code() ==
              grpc::StatusCode::FAILED_PRECONDITION);
        CHECK(StandsStill(pid));
        std::this_thread::sleep_for(std::chrono::milliseconds(700));
      }
      // A restart finds it frozen, too.
      supervisor.Restart(SIGKILL);
      CHECK(supervisor.Exec(kSession, {"true"}).status.error_code() ==
            grpc::StatusCode::FAILED_PRECONDITION);
      CHECK(StandsStill(pid));
      REQUIRE(supervisor.Creel({"thaw", kSession}).exit_code == 0);
      CHECK_FALSE(StandsStill(pid));
      CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
    }
  }

  TEST_CASE("what was paused when the supervisor was killed goes on with the next") {
    Supervisor supervisor(After(""));
    REQUIRE(supervisor.Write(kSession, "kept", "here").ok());
    REQUIRE(BecomesPaused(supervisor));
    supervisor.Restart(SIGKILL);
    CHECK(supervisor.Read(kSession, "kept").second == "here");
    // Killed just after a call let it go on, when the engine may not know.
    REQUIRE(BecomesPaused(supervisor));
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    supervisor.Restart(SIGKILL);
    CHECK(supervisor.Read(kSession, "kept").second == "here");
    CHECK(Eventually([&] {
      return !Container(supervisor).paused || !supervisor.Exec(kSession, {"true"}).status.ok();
    }));
  }

  TEST_CASE(
      "what somebody else paused while no supervisor ran is no idle one, and is not touched") {
    Supervisor supervisor({.sandbox_config = "  limits:\n    workspace: 16MiB\n"});
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    const Living living = Container(supervisor);
    supervisor.Stop(SIGKILL);
    RunProgram({"docker", "pause", living.id});
    supervisor.StartAgain();
    CHECK(supervisor.Exec(kSession, {"true"}).status.error_code() ==
          grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(StandsStill(living.pid));
  }
}

}  // namespace
}  // namespace creel::testing
