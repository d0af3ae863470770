#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace creel::web {

// What Prometheus is told. Counters follow the record, so that what is counted is what is written
// there; gauges are set by whoever has looked. No label names a session, a sender or a host, and
// each takes its values from a fixed list. Counters begin at zero with each start of the
// supervisor, as Prometheus expects; a sandbox that is adopted counts as adopted, not as opened.
// Thread-safe.
class Metrics {
 public:
  // What is there now.
  struct Present {
    uint64_t opening = 0;
    uint64_t running = 0;
    uint64_t frozen = 0;
    uint64_t lost = 0;
    uint64_t closing = 0;
    uint64_t commands = 0;
    uint64_t approvals_waiting = 0;
    uint64_t pairings_waiting = 0;
    uint64_t incidents_open = 0;
    uint64_t read_only_switches = 0;
    double cpu_cores = 0;  // that sandboxes use
    uint64_t memory_bytes = 0;
    uint64_t disk_bytes = 0;
    uint64_t logins = 0;
    bool record_writable = true;
  };

  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // A line of the record, as it was written.
  void OnRecord(std::string_view line);
  void SetPresent(const Present& present);
  // A page was opened, or has gone.
  void OnPage(int change);

  // In Prometheus' text format.
  [[nodiscard]] std::string Scrape();

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace creel::web
