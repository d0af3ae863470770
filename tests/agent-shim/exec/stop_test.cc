#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "agent-shim/exec/process_tree.h"
#include "tests/agent-shim/exec/exec_harness.h"
#include "tests/agent-shim/exec/mark.h"

namespace creel::shim {
namespace {

v1::CommandSpec Misbehave(const std::string& mode, const Mark& mark) {
  return Program({MISBEHAVE, mode, mark.path()});
}

bool Lives(pid_t pid) {
  for (const ProcessEntry& entry : ListProcesses()) {
    if (entry.pid == pid) {
      return !entry.zombie;
    }
  }
  return false;
}

}  // namespace

TEST_SUITE("the kill ladder") {
  TEST_CASE("a command that is timed out leaves no process, whatever it does") {
    struct Row {
      const char* mode;
      v1::KillStep at_least;
    };
    const Row rows[] = {
        {"sleep", v1::KILL_STEP_TERM},          {"ignore-term", v1::KILL_STEP_KILL},
        {"stopped", v1::KILL_STEP_KILL},        {"setsid", v1::KILL_STEP_SUBTREE},
        {"double-fork", v1::KILL_STEP_SUBTREE}, {"subreaper", v1::KILL_STEP_SUBTREE},
    };
    Harness harness;
    for (const Row& row : rows) {
      CAPTURE(row.mode);
      Mark mark;
      const Outcome outcome = harness.Run(WithTimeout(Misbehave(row.mode, mark), 300, 200));
      CHECK(outcome.exit.timed_out());
      CHECK_FALSE(outcome.exit.stopped());
      CHECK(outcome.exit.has_signal());
      CHECK(outcome.exit.kill_step() == row.at_least);
      CHECK_FALSE(mark.held());
    }
  }

  TEST_CASE("a stop answers when nothing is left") {
    Harness harness;
    Mark mark;
    auto process = *harness.Start(Misbehave("double-fork", mark));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(mark.held());
    v1::ProcessInput stop;
    stop.mutable_stop()->mutable_grace();
    Mutex mu;
    CondVar changed;
    bool done = false;
    bool held = true;
    process->Send(stop, true, [&](const absl::Status& status) {
      CHECK(status.ok());
      MutexLock lock(mu);
      held = mark.held();
      done = true;
      changed.SignalAll();
    });
    {
      MutexLock lock(mu);
      const Deadline deadline = creel::After(std::chrono::seconds(5));
      while (!done && changed.WaitUntil(mu, deadline)) {
      }
      CHECK(done);
      CHECK_FALSE(held);
    }
    const Outcome outcome = std::make_shared<Collector>()->Read(process);
    CHECK(outcome.exit.stopped());
    CHECK_FALSE(outcome.exit.timed_out());
  }

  TEST_CASE("a command that ends by itself leaves its background children be") {
    Harness harness;
    Mark mark;
    auto process = *harness.Start(Misbehave("daemon", mark), "daemon");
    const auto begin = std::chrono::steady_clock::now();
    const Outcome outcome = std::make_shared<Collector>()->Read(process);
    // Its output is still held open, which must not delay the exit by more than a moment.
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(250));
    CHECK(outcome.exit.code() == 0);
    CHECK(outcome.out == "now\n");
    CHECK(mark.held());
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    // What it wrote later is there for whoever attaches.
    const Outcome later = std::make_shared<Collector>()->Read(process, 4);
    CHECK(later.out == "later\n");
    CHECK(later.exit.output_bytes() == 4);
    v1::ProcessInput stop;
    stop.mutable_stop();
    process->Send(stop, true, [](const absl::Status&) {});
    for (int i = 0; i < 300 && mark.held(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK_FALSE(mark.held());
  }

  TEST_CASE("a reaper that vanishes means a lost exit, never a made-up one") {
    Harness harness;
    auto process = *harness.Start(Program({"sleep", "30"}));
    while (process->pid() == 0 || process->reaper_pid() == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    kill(process->reaper_pid(), SIGKILL);
    const Outcome outcome = std::make_shared<Collector>()->Read(process);
    CHECK(outcome.exit.has_lost());
    // Killed; a busy machine takes a moment to carry that out.
    const pid_t pid = process->pid();
    for (int i = 0; i < 300 && Lives(pid); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK_FALSE(Lives(pid));
  }

  // Steps that only PID 1 of a pid namespace can take.
  TEST_CASE("as the first process of a pid namespace") {
    if (getuid() != 0) {
      return;
    }
    for (const char* kernel : {"", " no-subreapers"}) {
      for (const char* scenario :
           {"outrun", "kill-all", "lost-reaper", "orphans", "leftovers", "neighbours"}) {
        CAPTURE(kernel);
        CAPTURE(scenario);
        const std::string command = std::string("timeout 60 unshare --pid --fork --mount-proc ") +
                                    INIT_PROBE + " " + scenario + " " + MISBEHAVE + kernel;
        CHECK(std::system(command.c_str()) == 0);
      }
    }
  }
}

}  // namespace creel::shim
