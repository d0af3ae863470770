#include <doctest/doctest.h>

#include <chrono>
#include <string>

#include "tests/supervisor/audit/audit_world.h"

namespace creel {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

double Seconds(steady_clock::time_point since) {
  return duration<double>(steady_clock::now() - since).count();
}

TEST_SUITE("AuditSpeed") {
  TEST_CASE("a million records verify in five seconds") {
    AuditWorld world;
    world.options.sync_every = std::chrono::milliseconds(20);
    world.Open();
    constexpr int kCalls = 500'000;
    const auto began = steady_clock::now();
    for (int i = 0; i < kCalls; ++i) {
      REQUIRE(world.log
                  ->Append(AuditEvent("call.allowed")
                               .Number("call", i)
                               .Text("session", "agent:main:whatsapp:group:120363")
                               .Text("sender", "whatsapp:+15555550123")
                               .Text("tool", "exec")
                               .Text("verdict", "allow")
                               .Text("rule", "placement.non-main")
                               .Text("summary", "grep -rn something /workspace/src"))
                  .ok());
      world.log->Keep(AuditEvent("call.ended")
                          .Number("call", i)
                          .Text("session", "agent:main:whatsapp:group:120363")
                          .Text("sender", "whatsapp:+15555550123")
                          .Text("tool", "exec")
                          .Text("sandbox", "0123456789abcdef")
                          .Text("outcome", "exit 0"));
    }
    const double append_us = Seconds(began) * 1e6 / (2 * kCalls);
    world.Close();
    double best = 1e9;
    VerifyReport report;
    // A machine that builds something else beside is no judge: the best of three counts.
    for (int i = 0; i < 3; ++i) {
      const auto verifying = steady_clock::now();
      report = world.Verify();
      best = std::min(best, Seconds(verifying));
    }
    CHECK(report.sound);
    CHECK(report.records > 1'000'000);
    MESSAGE("append_us=" << append_us << " verify_1m_s=" << best
                         << " checkpoints=" << report.checkpoints);
    CHECK(best <= 5.0);
  }
}

}  // namespace
}  // namespace creel
