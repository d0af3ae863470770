#include "supervisor/incident/stop_command.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>

namespace creel {
namespace {

using std::chrono::seconds;

TEST_SUITE("StopCommand") {
  TEST_CASE("its end is told, with what it said") {
    CHECK(RunStopCommand({"/bin/sh", "-c", "echo stopped; exit 3"}, seconds(20)) ==
          "it ended with exit code 3; it said: stopped\\x0a");
    CHECK(RunStopCommand({"/bin/true"}, seconds(20)) == "it ended with exit code 0");
    CHECK(RunStopCommand({"/bin/sh", "-c", "kill -9 $$"}, seconds(20)) == "it ended by signal 9");
    CHECK(RunStopCommand({"/nowhere/at/all"}, seconds(20)) == "it ended with exit code 127");
    CHECK(RunStopCommand({}, seconds(20)).find("incident.stop_gateway") != std::string::npos);
  }

  TEST_CASE("it gets no words of a shell and nothing of our environment") {
    CHECK(RunStopCommand({"/bin/echo", "$(id);`id`"}, seconds(20)).find("$(id);`id`") !=
          std::string::npos);
    const std::string said = RunStopCommand({"/usr/bin/env"}, seconds(20));
    CHECK(said.find("PATH=") != std::string::npos);
    CHECK(said.find("HOME=") == std::string::npos);
  }

  TEST_CASE("one that does not end is killed with what it started") {
    const auto began = std::chrono::steady_clock::now();
    const std::string told =
        RunStopCommand({"/bin/sh", "-c", "sleep 1000 & sleep 1000"}, seconds(1));
    CHECK(told.find("was killed") != std::string::npos);
    CHECK(std::chrono::steady_clock::now() - began < seconds(15));
  }
}

}  // namespace
}  // namespace creel
