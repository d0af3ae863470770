// A sandbox whose shim has been taken over: it may hurt itself, nobody else.
#include <doctest/doctest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>

#include "tests/integration/support/gvisor.h"
#include "tests/integration/support/incidents.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

constexpr char kGood[] = "agent:main:whatsapp:group:1";
constexpr char kHostile[] = "agent:main:whatsapp:group:2";

long ResidentKb(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) {
      return std::atol(line.c_str() + 6);
    }
  }
  return 0;
}

std::string Dropped(Supervisor& supervisor, const std::string& session) {
  grpc::ClientContext context;
  operator_::v1::InspectSessionRequest request;
  request.set_session(session);
  operator_::v1::InspectSessionResponse response;
  static_cast<void>(supervisor.operators().InspectSession(&context, request, &response));
  std::string reasons;
  for (const auto& peer : response.dropped_peers()) {
    reasons += peer.reason() + "\n";
  }
  return reasons;
}

// Reasons in the record, which also has those of sandboxes that were given up since.
size_t Recorded(Supervisor& supervisor) {
  operator_::v1::ReadRecordRequest request;
  request.set_event("peer.dropped");
  return Operators(supervisor).Lines(request).size();
}

TEST_SUITE("HostileShim") {
  TEST_CASE("whatever it sends, its call ends, the reason is kept, and others are undisturbed") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kGood, {"true"}).code() == 0);
    supervisor.Restart(SIGTERM, std::string(CREEL_TEST_PROGRAMS) + "/hostile_shim");
    REQUIRE(supervisor.Exec(kHostile, {"good"}).code() == 0);
    const long before = ResidentKb(supervisor.pid());

    // Attacks on the connection: dropped, with the bound that broke.
    for (const char* attack : {"continuation", "oversized", "ping", "settings", "rst", "push",
                               "unknown", "garbage"}) {
      CAPTURE(attack);
      const size_t recorded = Recorded(supervisor);
      const auto begin = std::chrono::steady_clock::now();
      const Outcome outcome = supervisor.Exec(kHostile, {attack}, {}, "", std::chrono::seconds(10));
      CHECK(outcome.code() == -1);
      CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(4));
      // The call may end a moment before the reason is written down.
      CHECK(Eventually([&] {
        return !Dropped(supervisor, kHostile).empty() || Recorded(supervisor) > recorded;
      }));
      const auto calm = std::chrono::steady_clock::now();
      CHECK(supervisor.Exec(kGood, {"echo", "fine"}).out == "fine\n");
      CHECK(std::chrono::steady_clock::now() - calm < std::chrono::seconds(Times(1, 4)));
      // It may come back and be used again, or it is given up and made anew.
      CHECK(Eventually([&] { return supervisor.Exec(kHostile, {"good"}).code() == 0; }));
    }
    // Lies inside well-formed messages.
    for (const char* attack : {"lie-offset", "lie-exit", "huge-message", "empty-events"}) {
      CAPTURE(attack);
      const Outcome outcome = supervisor.Exec(kHostile, {attack}, {}, "", std::chrono::seconds(10));
      CHECK(outcome.code() == -1);
      CHECK(supervisor.Exec(kGood, {"echo", "fine"}).out == "fine\n");
      CHECK(Eventually([&] { return supervisor.Exec(kHostile, {"good"}).code() == 0; }));
    }
    const Outcome length = supervisor.Exec(kHostile, {"lie-length"});
    CHECK(length.exit.output_bytes() == 0);
    const Outcome escape = supervisor.Exec(kHostile, {"escape-codes"});
    CHECK(escape.exit.start_failure().message().find('\x1b') == std::string::npos);
    CHECK(escape.exit.start_failure().message().size() < 4096);
    supervisor.Exec(kHostile, {"endless"}, {}, "", std::chrono::seconds(20));
    CHECK(supervisor.Exec(kGood, {"echo", "fine"}).out == "fine\n");
    CHECK(ResidentKb(supervisor.pid()) < before + 80'000);
  }
}

}  // namespace
}  // namespace creel::testing
