// The engine itself stops, is killed, or is too old: an engine of the test's own, as the machine's
// serves others.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <string>
#include <thread>

#include "tests/integration/support/private_engine.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

using Steady = std::chrono::steady_clock;

constexpr char kSession[] = "agent:main:whatsapp:group:120363";

TEST_SUITE("Engine") {
  TEST_CASE("stopped, every waiting call ends within a second with the cause; back, it serves") {
    PrivateEngine engine;
    Supervisor supervisor({.engine_host = engine.host()});
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    auto command = std::async(std::launch::async, [&] {
      return supervisor.Exec(kSession, {"sleep", "1000"});
    });
    REQUIRE(Eventually([&] { return supervisor.Get(kSession).processes() == 1; }));
    const auto begin = Steady::now();
    kill(engine.pid(), SIGTERM);
    REQUIRE(command.wait_for(std::chrono::seconds(10)) == std::future_status::ready);
    CHECK(Steady::now() - begin < std::chrono::milliseconds(1300));
    const Outcome outcome = command.get();
    const std::string told =
        outcome.has_exit ? outcome.exit.lost() : outcome.status.error_message();
    CAPTURE(told);
    CHECK(outcome.code() == -1);
    CHECK(told.find("container") != std::string::npos);
    // While it is away a call is told so, soon.
    CHECK(Eventually([&] { return !std::filesystem::exists(engine.pid_file()); },
                     std::chrono::seconds(30)));
    const auto asked = Steady::now();
    const Outcome away = supervisor.Exec("agent:main:telegram:dm:7", {"true"});
    CAPTURE(away.status.error_message());
    CHECK(away.status.error_code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(away.status.error_message().find("engine") != std::string::npos);
    CHECK(Steady::now() - asked < std::chrono::seconds(5));

    engine.Start();
    CHECK(Eventually(
        [&] {
          return supervisor.Exec(kSession, {"echo", "again"}).out == "again\n";
        },
        std::chrono::seconds(30)));
  }

  TEST_CASE("killed, its containers and their calls go on, and new sessions wait for nothing") {
    PrivateEngine engine;
    Supervisor supervisor({.engine_host = engine.host()});
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    const pid_t init =
        std::stoi(RunProgram({"docker", "-H", engine.host(), "inspect", "-f", "{{.State.Pid}}",
                              supervisor.Get(kSession).container_id()})
                      .out);
    REQUIRE(init > 1);
    kill(engine.pid(), SIGKILL);
    CHECK(supervisor.Exec(kSession, {"echo", "still"}).out == "still\n");
    const auto asked = Steady::now();
    const Outcome away = supervisor.Exec("agent:main:telegram:dm:7", {"true"});
    CAPTURE(away.status.error_message());
    CHECK(away.status.error_code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(Steady::now() - asked < std::chrono::seconds(5));
    // Nobody else would end it any more.
    kill(init, SIGKILL);
  }
}

}  // namespace
}  // namespace creel::testing
