// Fifty busy sessions stand still at once. `make campaign` does it twenty times
// (CREEL_FREEZE_ROUNDS).
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/support/incidents.h"

namespace creel::testing {
namespace {

using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;

int Setting(const char* name, int otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoi(value);
}

std::string Session(int i) { return "agent:main:dm:" + std::to_string(i); }

// What the container's processes have used of the processor; -1 if that cannot be seen.
int64_t Used(const std::string& container) {
  for (const std::string& path :
       {"/sys/fs/cgroup/cpuacct/docker/" + container + "/cpuacct.usage",
        "/sys/fs/cgroup/cpu,cpuacct/docker/" + container + "/cpuacct.usage"}) {
    std::ifstream file(path);
    int64_t used = 0;
    if (file >> used) {
      return used;
    }
  }
  std::ifstream v2("/sys/fs/cgroup/system.slice/docker-" + container + ".scope/cpu.stat");
  std::string word;
  int64_t used = 0;
  return v2 >> word >> used ? used : -1;
}

struct Worst {
  double gate = 0;    // milliseconds
  double freeze = 0;  // seconds
  int killed = 0;
};

// Opens fifty busy sessions, and freezes and thaws them all, `rounds` times, while others call.
Worst FreezeRounds(Supervisor& supervisor, int rounds) {
  constexpr int kSessions = 50;
  for (int i = 0; i < kSessions; ++i) {
    REQUIRE(supervisor
                .Shell(Session(i),
                       "(while :; do :; done) >/dev/null 2>&1 & (while :; do sleep 0.01; done) "
                       ">/dev/null 2>&1 &",
                       std::chrono::seconds(120))
                .code() == 0);
  }
  Operators operators(supervisor);
  Worst worst;
  for (int round = 0; round < rounds; ++round) {
    CAPTURE(round);
    // Callers that do not stop calling.
    std::atomic<bool> done = false;
    std::atomic<int64_t> last_success{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 4; ++c) {
      callers.emplace_back([&, c] {
        for (int i = c; !done; i = (i + 4) % kSessions) {
          const auto began = Steady::now().time_since_epoch().count();
          if (supervisor.Exec(Session(i), {"true"}).code() == 0) {
            int64_t seen = last_success;
            while (seen < began && !last_success.compare_exchange_weak(seen, began)) {
            }
          }
        }
      });
    }
    std::this_thread::sleep_for(milliseconds(300));
    const auto asked = Steady::now();
    const auto [status, opened] = operators.Open(About(""));
    CAPTURE(status.error_message());
    REQUIRE(status.ok());
    const operator_::v1::Incident& incident = opened.incident();
    std::this_thread::sleep_for(milliseconds(200));
    done = true;
    for (std::thread& caller : callers) {
      caller.join();
    }
    CHECK(incident.sandboxes_size() == kSessions);
    for (const auto& sandbox : incident.sandboxes()) {
      CAPTURE(sandbox.error());
      CHECK_FALSE(sandbox.method().empty());
      worst.killed += sandbox.method() == "killed" ? 1 : 0;
    }
    // No call that began later than 100 ms after the request was carried out.
    const auto by = milliseconds(static_cast<int64_t>(100 * Slack()));
    CHECK(last_success <= (asked + by).time_since_epoch().count());
    worst.gate = std::max(worst.gate, ToSeconds(incident.gate_took()).count() * 1000);
    worst.freeze = std::max(worst.freeze, ToSeconds(incident.freeze_took()).count());
    // They really stand still.
    std::vector<int64_t> before;
    for (const auto& sandbox : incident.sandboxes()) {
      before.push_back(Used(sandbox.container_id()));
    }
    std::this_thread::sleep_for(milliseconds(300));
    int moved = 0;
    for (int i = 0; i < incident.sandboxes_size(); ++i) {
      if (incident.sandboxes(i).method() == "killed") {
        continue;
      }
      const int64_t now = Used(incident.sandboxes(i).container_id());
      moved += now != before[static_cast<size_t>(i)] || now < 0 ? 1 : 0;
    }
    CHECK(moved == 0);
    const grpc::Status thawed = operators.Thaw(incident.id());
    CAPTURE(thawed.error_message());
    REQUIRE(thawed.ok());
    // Each goes on, or begins anew if it could only be killed.
    REQUIRE(supervisor.Exec(Session(round % kSessions), {"true"}).code() == 0);
  }
  return worst;
}

constexpr char kSmall[] =
    "  limits:\n    memory: 64MiB\n    tmp: 8MiB\n    run: 4MiB\n    shm: 8MiB\n"
    "    workspace: 16MiB\n";

TEST_SUITE("FreezeMany") {
  TEST_CASE("fifty busy sessions: the gate is shut in 100 ms and all stand still within a second") {
    const int rounds = Setting("CREEL_FREEZE_ROUNDS", 2);
    Supervisor supervisor({.sandbox_config = kSmall});
    const Worst worst = FreezeRounds(supervisor, rounds);
    MESSAGE("gate_ms=" << worst.gate << " freeze_50_s=" << worst.freeze << " rounds=" << rounds);
    CHECK(worst.gate <= 100 * Slack());
    CHECK(worst.freeze <= 1.0 * Slack());
    CHECK(worst.killed == 0);
  }

  TEST_CASE("through the engine alone, as a member of the docker group: within three seconds") {
    const int rounds = Setting("CREEL_FREEZE_ROUNDS", 1);
    Supervisor supervisor({.sandbox_config = kSmall, .as_docker_user = true});
    const Worst worst = FreezeRounds(supervisor, rounds);
    MESSAGE("engine alone: gate_ms=" << worst.gate << " freeze_50_s=" << worst.freeze
                                     << " rounds=" << rounds << " killed=" << worst.killed);
    CHECK(worst.gate <= 100 * Slack());
    CHECK(worst.freeze <= 3.0 * Slack());
    // A machine that is busy otherwise may come to the point where killing is all that is left.
    CHECK(worst.killed <= (Slack() > 1 ? 5 : 0));
  }
}

}  // namespace
}  // namespace creel::testing
