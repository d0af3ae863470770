#include "supervisor/web/metrics.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "supervisor/audit/events.h"
#include "supervisor/audit/line.h"

using namespace creel;  // NOLINT: a test of one room
using web::Metrics;

namespace {

// A line as the record has it.
std::string Line(const AuditEvent& event) {
  std::string text =
      LineWriter::Write(event, 1, kNoHash, std::chrono::system_clock::now(), SecretMask()).text;
  text.pop_back();
  return text;
}

bool Has(Metrics& metrics, const std::string& line) {
  return ("\n" + metrics.Scrape()).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_SUITE("Metrics") {
  TEST_CASE("calls are counted as the record tells them") {
    Metrics metrics;
    const CallFacts call{.number = 1, .session = "s", .sender = "x:y", .tool = "exec"};
    metrics.OnRecord(Line(CallAllowed(call)));
    metrics.OnRecord(Line(CallDenied(call, "no")));
    for (const char* outcome :
         {"exit 0", "exit 3", "signal 9", "exit 1, timed out", "lost: x", "?"}) {
      metrics.OnRecord(Line(CallEnded(call, "box", outcome, std::chrono::milliseconds(20))));
    }
    CHECK(Has(metrics, "creel_calls_total{tool=\"exec\",verdict=\"allow\"} 1"));
    CHECK(Has(metrics, "creel_calls_total{tool=\"exec\",verdict=\"deny\"} 1"));
    CHECK(Has(metrics, "creel_exec_duration_seconds_count 6"));
    CHECK(Has(metrics, "creel_exec_duration_seconds_bucket{le=\"0.01\"} 0"));
    CHECK(Has(metrics, "creel_exec_duration_seconds_bucket{le=\"0.025\"} 6"));
    for (const char* how : {"zero", "nonzero", "signal", "timed_out", "lost", "refused"}) {
      CAPTURE(how);
      CHECK(Has(metrics, "creel_exec_exits_total{outcome=\"" + std::string(how) + "\"} 1"));
    }
    CallFacts read = call;
    read.tool = "read";
    metrics.OnRecord(Line(CallEnded(read, "box", "ok", std::chrono::milliseconds(20))));
    CHECK(Has(metrics, "creel_file_call_duration_seconds_count 1"));
    CHECK(Has(metrics, "creel_record_lines_total 9"));
  }

  TEST_CASE("whatever a gateway makes up, no label is new") {
    Metrics metrics;
    const auto series = [&] {
      const std::string text = metrics.Scrape();
      return std::count(text.begin(), text.end(), '\n');
    };
    const auto before = series();
    for (int i = 0; i < 100; ++i) {
      const std::string tool = "tool\"}\n" + std::to_string(i);
      metrics.OnRecord(Line(CallAllowed({.session = tool, .sender = tool, .tool = tool})));
      metrics.OnRecord(Line(SessionEvent(tool, {.session = tool}, "")));
      metrics.OnRecord(Line(OperatorAct(tool, tool, tool, tool)));
      metrics.OnRecord(Line(PeerDropped(tool, {}, tool)));
      metrics.OnRecord(Line(EgressDecided({.kind = tool})));
    }
    metrics.OnRecord("no line at all");
    metrics.OnRecord("");
    CHECK(series() == before);
    CHECK(Has(metrics, "creel_calls_total{tool=\"other\",verdict=\"allow\"} 100"));
    CHECK(Has(metrics, "creel_operator_acts_total{door=\"other\"} 100"));
    CHECK(Has(metrics, "creel_peers_dropped_total{door=\"other\"} 100"));
    CHECK(Has(metrics, "creel_egress_requests_total{kind=\"request\",verdict=\"deny\"} 100"));
  }

  TEST_CASE("acts count by their door, dropped peers with those that were left out") {
    Metrics metrics;
    metrics.OnRecord(Line(OperatorAct("ThawSession", "s", "", "page ab12cd from 127.0.0.1")));
    metrics.OnRecord(Line(OperatorAct("ThawSession", "s", "", "operator.sock")));
    metrics.OnRecord(Line(PeerDropped("shim.sock", {}, "x").Number("left_out", 9)));
    metrics.OnRecord(
        Line(EgressEnded({.kind = "tunnel"}, 200, 5, 7, std::chrono::milliseconds(1))));
    CHECK(Has(metrics, "creel_operator_acts_total{door=\"page\"} 1"));
    CHECK(Has(metrics, "creel_operator_acts_total{door=\"operator.sock\"} 1"));
    CHECK(Has(metrics, "creel_peers_dropped_total{door=\"shim.sock\"} 10"));
    CHECK(Has(metrics, "creel_egress_bytes_total{direction=\"up\"} 5"));
    CHECK(Has(metrics, "creel_egress_bytes_total{direction=\"down\"} 7"));
  }
}
