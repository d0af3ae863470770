#include "tests/bench/capture_bench.h"

#include <chrono>
#include <stdexcept>
#include <string>

#include "tests/integration/support/incidents.h"

namespace creel::bench {
namespace {

constexpr char kSession[] = "agent:main:bench:capture";

void Require(bool holds, const std::string& what) {
  if (!holds) {
    throw std::runtime_error(what);
  }
}

}  // namespace

void MeasureCapture(Report& report) {
  testing::Supervisor supervisor({.sandbox_config = "  limits:\n    workspace: 1GiB\n"});
  Require(supervisor
                  .Shell(kSession,
                         "for i in 1 2 3 4; do head -c 50000000 /dev/urandom > f$i; done; sync",
                         std::chrono::seconds(120))
                  .code() == 0,
          "fill a workspace");
  testing::Operators operators(supervisor);
  const auto [status, opened] = operators.Open(testing::About(kSession));
  Require(status.ok(), "open an incident: " + status.error_message());
  Samples took;
  for (int i = 0; i < 5; ++i) {
    const auto [captured, bundle] = operators.Capture(opened.incident().id());
    Require(captured.ok(), "collect the evidence: " + captured.error_message());
    Require(bundle.bytes() > 190'000'000, "the bundle lacks the workspace");
    took.Add(1000 * testing::ToSeconds(bundle.took()).count());
  }
  report.Times("evidence with a workspace of 200 MB", took);
  report.Figure("capture_200mb_s", took.Median() / 1000, "<= 5",
                "the evidence of an incident, with a workspace of 200 MB of random bytes, s");
}

}  // namespace creel::bench
