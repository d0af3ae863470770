#include "supervisor/engine/event_watcher.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "supervisor/engine/docker_engine.h"
#include "tests/fakes/fake_engine.h"
#include "tests/supervisor/engine/test_server.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr EventWatcher::Options kQuick{.first_pause = milliseconds(5),
                                       .last_pause = milliseconds(20)};

bool Within(milliseconds time, const std::function<bool()>& condition) {
  const Deadline until = After(time);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) {
      return false;
    }
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

// What a watcher has told.
struct Told {
  std::atomic<int> events = 0;
  std::atomic<int> connected = 0;
  std::atomic<int> lost = 0;

  EventWatcher::Callbacks Callbacks() {
    return {.on_event = [this](const EngineEvent&) { ++events; },
            .on_connected = [this] { ++connected; },
            .on_lost =
                [this](const absl::Status& status) {
                  CHECK_FALSE(status.ok());
                  ++lost;
                }};
  }
};

std::string EventLine() {
  return "{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"a\"},\"timeNano\":1}\n";
}

std::string Chunk(const std::string& data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

}  // namespace

TEST_SUITE("EventWatcher") {
  TEST_CASE("events come from the engine, and again after it was away") {
    FakeEngine engine;
    engine.AddImage("i", {.id = "sha256:1"});
    Told told;
    EventWatcher watcher(engine, "creel.install=x", told.Callbacks(), kQuick);
    REQUIRE(Within(seconds(5), [&] { return told.connected == 1; }));
    ContainerConfig config;
    config.name = "c";
    config.image = "i";
    config.labels = {{"creel.install", "x"}};
    REQUIRE(engine.CreateContainer(config, After(seconds(1))).ok());
    REQUIRE(Within(seconds(5), [&] { return told.events == 1; }));

    engine.SetAway(true);
    REQUIRE(Within(seconds(5), [&] { return told.lost == 1; }));
    std::this_thread::sleep_for(milliseconds(100));
    CHECK(told.lost == 1);  // once, however many attempts fail
    engine.SetAway(false);
    REQUIRE(Within(seconds(5), [&] { return told.connected == 2; }));
    REQUIRE(engine.StartContainer("c", After(seconds(1))).ok());
    CHECK(Within(seconds(5), [&] { return told.events == 2; }));
  }

  TEST_CASE("a stream over a socket is followed, broken and found again") {
    TestServer server([](const TestRequest& request, TestConnection& connection) {
      if (request.target == "/version") {
        return connection.Send(Answer(200, R"({"ApiVersion":"1.41","MinAPIVersion":"1.12"})"));
      }
      // An event in two pieces, and then none.
      const std::string line = EventLine();
      connection.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      connection.Send(Chunk(line.substr(0, 10)));
      std::this_thread::sleep_for(milliseconds(20));
      connection.Send(Chunk(line.substr(10)));
      return connection.Hang();
    });
    const auto engine = DockerEngine::Connect({.host = server.host()}, After(seconds(5)));
    REQUIRE(engine.ok());
    Told told;
    std::chrono::steady_clock::time_point ending;
    {
      EventWatcher watcher(**engine, "creel.install=a b", told.Callbacks(), kQuick);
      REQUIRE(Within(seconds(5), [&] { return told.events == 1; }));
      CHECK(told.connected == 1);
      const std::string target = server.Requests().back().target;
      CHECK(target.starts_with("/v1.41/events?since="));
      CHECK(target.find("creel.install%3Da%20b") != std::string::npos);
      const auto stopped = std::chrono::steady_clock::now();
      server.Stop();
      REQUIRE(Within(seconds(5), [&] { return told.lost == 1; }));
      CHECK(std::chrono::steady_clock::now() - stopped < seconds(1));
      server.Start();
      REQUIRE(Within(seconds(5), [&] { return told.events == 2; }));
      CHECK(told.connected == 2);
      ending = std::chrono::steady_clock::now();
    }
    // The stream was silent, and the watcher ended all the same.
    CHECK(std::chrono::steady_clock::now() - ending < seconds(2));
  }

  TEST_CASE("a refusal, a malformed event and one without end are losses") {
    const std::string answers[] = {
        Answer(500, R"({"message":"no"})"),
        Answer(200, "nonsense\n"),
        Answer(200, EventLine()),  // a stream that ends
        Answer(200, std::string((1 << 20) + 1, 'x')),
    };
    for (const std::string& answer : answers) {
      CAPTURE(answer.substr(0, 80));
      TestServer server([&](const TestRequest& request, TestConnection& connection) {
        return connection.Send(request.target == "/version"
                                   ? Answer(200, R"({"ApiVersion":"1.41","MinAPIVersion":"1.12"})")
                                   : answer);
      });
      const auto engine = DockerEngine::Connect({.host = server.host()}, After(seconds(5)));
      REQUIRE(engine.ok());
      Told told;
      EventWatcher watcher(**engine, "l", told.Callbacks(), kQuick);
      CHECK(Within(seconds(5), [&] { return told.lost >= 1; }));
    }
  }
}

}  // namespace creel
