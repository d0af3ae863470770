// What becomes of a supervisor whose state folder or clock is not what it should be.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mount.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "supervisor/audit/line.h"
#include "tests/integration/support/incidents.h"

namespace creel::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kSession[] = "agent:main:whatsapp:group:120363";

Finished Start(const Supervisor& supervisor) {
  return RunProgram(
      {CREEL_TEST_CREELD, "--config", supervisor.dir() + "/creel.yaml", "--engine-wait", "0"}, "",
      std::chrono::seconds(60));
}

TEST_SUITE("StateFolder") {
  TEST_CASE(
      "a read-only store: the start refuses and says why, sandboxes stay, and it serves once "
      "mended") {
    Supervisor supervisor;
    REQUIRE(supervisor.Write(kSession, "kept", "yes").ok());
    supervisor.Stop(SIGTERM);
    // The folder itself becomes a mount, so that it can be made read-only as a whole.
    const std::string state = supervisor.state_dir();
    REQUIRE(::mount(state.c_str(), state.c_str(), nullptr, MS_BIND, nullptr) == 0);
    REQUIRE(::mount(nullptr, state.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) ==
            0);
    const Finished refused = Start(supervisor);
    CAPTURE(refused.err);
    CHECK(refused.exit_code == 1);
    CHECK((refused.out + refused.err).find("Read-only file system") != std::string::npos);
    CHECK((refused.out + refused.err).find(state) != std::string::npos);
    // Nothing was lost by that.
    CHECK(ContainersOf(supervisor).size() == 1);
    REQUIRE(::mount(nullptr, state.c_str(), nullptr, MS_BIND | MS_REMOUNT, nullptr) == 0);
    supervisor.StartAgain();
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
    CHECK(Operators(supervisor).Verify().sound());
  }

  TEST_CASE("the state folder gone while it runs: a freeze is still a freeze, and exits 0") {
    Supervisor supervisor;
    REQUIRE(supervisor.Shell(kSession, "(while :; do :; done) >/dev/null 2>&1 &").code() == 0);
    const std::string container = supervisor.Get(kSession).container_id();
    fs::rename(supervisor.state_dir(), supervisor.state_dir() + ".gone");
    const Finished frozen = supervisor.Creel({"freeze", kSession, "--reason", "all is gone"});
    CAPTURE(frozen.err);
    CHECK(frozen.exit_code == 0);
    CHECK(frozen.err.find("warning") != std::string::npos);
    CHECK(supervisor.Get(kSession).state() == gateway::v1::SESSION_STATE_FROZEN);
    CHECK_FALSE(supervisor.Exec(kSession, {"true"}).status.ok());
    // So is an incident.
    const Finished opened = supervisor.Creel(
        {"incident", "open", "--all", "--reason", "all is gone", "--without-capture"});
    CAPTURE(opened.err);
    CHECK(opened.exit_code == 0);
    CHECK(opened.err.find("warning") != std::string::npos);
    CHECK(ContainersOf(supervisor) == std::vector<std::string>{container});
    std::error_code ignored;
    fs::remove_all(supervisor.state_dir(), ignored);  // what was made meanwhile
    fs::rename(supervisor.state_dir() + ".gone", supervisor.state_dir());
  }

  TEST_CASE("the state folder missing at a start: it is made, and what it told of is kept") {
    Supervisor supervisor;
    REQUIRE(supervisor.Write(kSession, "kept", "yes").ok());
    const std::string container = supervisor.Get(kSession).container_id();
    supervisor.Stop(SIGKILL);
    fs::rename(supervisor.state_dir(), supervisor.state_dir() + ".gone");
    supervisor.StartAgain();
    // Another install: what the old one left is not its own, and is not touched.
    CHECK(supervisor.Get(kSession).sandbox_id().empty());
    const std::string log = supervisor.Log();
    CAPTURE(log);
    CHECK(log.find("is of another install") != std::string::npos);
    CHECK(RunProgram({"docker", "inspect", "-f", "{{.State.Running}}", container}).out == "true\n");
    CHECK(supervisor.Exec("agent:main:dm:new", {"true"}).code() == 0);
    supervisor.Close("agent:main:dm:new");
    supervisor.Stop(SIGTERM);
    fs::remove_all(supervisor.state_dir());
    fs::rename(supervisor.state_dir() + ".gone", supervisor.state_dir());
    supervisor.StartAgain();
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
  }

  TEST_CASE("two supervisors on one state folder: the second refuses, and the first goes on") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    const Finished second = Start(supervisor);
    CHECK(second.exit_code == 1);
    CHECK((second.out + second.err).find("another creeld") != std::string::npos);
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
  }

  TEST_CASE("the clock set back an hour: nothing ends, the record goes on and verifies") {
    const std::string library =
        RunProgram({"sh", "-c",
                    "ls /usr/lib/*/faketime/libfaketimeMT.so.1 | head -n 1 | "
                    "tr -d '\\n'"})
            .out;
    REQUIRE_MESSAGE(!library.empty(), "libfaketime is in docker/setup/packages.txt");
    Supervisor supervisor;
    REQUIRE(supervisor.Write(kSession, "kept", "yes").ok());
    supervisor.Stop(SIGTERM);
    // The offset is read anew each time; what measures durations is left alone.
    const std::string offset = supervisor.dir() + "/offset";
    std::ofstream(offset) << "+0\n";
    setenv("LD_PRELOAD", library.c_str(), 1);
    setenv("FAKETIME_TIMESTAMP_FILE", offset.c_str(), 1);
    setenv("FAKETIME_NO_CACHE", "1", 1);
    setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1", 1);
    supervisor.StartAgain();
    for (const char* name : {"LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE", "FAKETIME_NO_CACHE",
                             "FAKETIME_DONT_FAKE_MONOTONIC"}) {
      unsetenv(name);
    }
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
    std::ofstream(offset) << "-3600\n";
    CHECK(Eventually([&] { return supervisor.Exec(kSession, {"true"}).code() == 0; }));
    CHECK(supervisor.Exec("agent:main:dm:new", {"true"}).code() == 0);
    CHECK(
        supervisor.Creel({"freeze", kSession, "--reason", "while the clock is wrong"}).exit_code ==
        0);
    CHECK(supervisor.Creel({"thaw", kSession}).exit_code == 0);
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
    Operators operators(supervisor);
    const auto verified = operators.Verify();
    CAPTURE(verified.problem());
    CHECK(verified.sound());
    // It really was set back: a later line tells an earlier time.
    std::string latest;
    bool went_back = false;
    for (const std::string& line : operators.Lines()) {
      const std::string at = FieldOf(line, "at").value_or("");
      went_back = went_back || at < latest;
      latest = std::max(latest, at);
    }
    CHECK(went_back);
    supervisor.Restart(SIGKILL);
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
    CHECK(Operators(supervisor).Verify().sound());
  }
}

}  // namespace
}  // namespace creel::testing
