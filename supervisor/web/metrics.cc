#include "supervisor/web/metrics.h"

#include <dirent.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <vector>

#include "supervisor/audit/line.h"

namespace creel::web {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;

const Histogram::BucketBoundaries kSeconds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                           1,     2.5,    5,     10,   30,    60,   300, 1800};

// Tools as doors name them; any other counts as `other`.
constexpr std::array<const char*, 19> kTools{
    "exec", "attach", "processes", "input", "read", "write", "edit",   "list",    "stat", "mkdir",
    "move", "copy",   "remove",    "glob",  "grep", "watch", "tar_in", "tar_out", "other"};
constexpr std::array<const char*, 12> kSessionEvents{
    "opening", "opened",  "open_failed", "closed",   "frozen",      "freeze_failed",
    "thawed",  "adopted", "lost",        "leftover", "thaw_failed", "closing"};
constexpr std::array<const char*, 6> kExits{"zero",      "nonzero", "signal",
                                            "timed_out", "refused", "lost"};
constexpr std::array<const char*, 4> kEgressKinds{"tunnel", "http", "service", "request"};
constexpr std::array<const char*, 3> kDoors{"operator.sock", "page", "other"};
constexpr std::array<const char*, 4> kPeerDoors{"shim.sock", "gateway.sock", "operator.sock",
                                                "other"};

// One series for each value of one label, made at once so that all begin at zero.
template <size_t N>
class ByLabel {
 public:
  ByLabel(Family<Counter>& family, const char* label, const std::array<const char*, N>& values,
          const Labels& more = {}) {
    for (const char* value : values) {
      Labels labels = more;
      labels[label] = value;
      series_[value] = &family.Add(labels);
    }
  }
  // `value`, or the last of the list.
  Counter& Of(std::string_view value, std::string_view otherwise) {
    const auto found = series_.find(value);
    return *(found != series_.end() ? found->second : series_.at(otherwise));
  }

 private:
  std::map<std::string_view, Counter*> series_;
};

// The series of a process that every exporter has.
struct Process {
  double cpu_seconds = 0;
  double resident_bytes = 0;
  double virtual_bytes = 0;
  double open_fds = 0;
  double threads = 0;
  double start_seconds = 0;
};

size_t CountFds() {
  size_t count = 0;
  if (DIR* const folder = ::opendir("/proc/self/fd"); folder != nullptr) {
    while (::readdir(folder) != nullptr) {
      ++count;
    }
    ::closedir(folder);
  }
  return count > 3 ? count - 3 : 0;  // `.`, `..` and the folder itself
}

Process LookAtProcess() {
  Process process;
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  // The name in the second field may hold anything.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) {
    return process;
  }
  std::istringstream fields(text.substr(name_end + 2));
  std::vector<std::string> field;
  for (std::string each; fields >> each;) {
    field.push_back(each);
  }
  constexpr size_t kUser = 11;
  constexpr size_t kSystem = 12;
  constexpr size_t kThreads = 17;
  constexpr size_t kStart = 19;
  constexpr size_t kVirtual = 20;
  constexpr size_t kResident = 21;
  if (field.size() <= kResident) {
    return process;
  }
  const auto number = [&](size_t at) { return std::strtod(field[at].c_str(), nullptr); };
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  process.cpu_seconds = (number(kUser) + number(kSystem)) / ticks;
  process.threads = number(kThreads);
  process.virtual_bytes = number(kVirtual);
  process.resident_bytes = number(kResident) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  process.open_fds = static_cast<double>(CountFds());
  std::ifstream uptime("/proc/uptime");
  double up = 0;
  uptime >> up;
  const auto now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  process.start_seconds = now - up + number(kStart) / ticks;
  return process;
}

std::optional<double> SecondsOf(std::string_view line) {
  const std::optional<std::string> text = FieldOf(line, "us");
  int64_t us = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), us).ec != std::errc()) {
    return std::nullopt;
  }
  return static_cast<double>(us) / 1e6;
}

// A number that cannot be negative; 0 if it is not there.
double NumberOf(std::string_view line, std::string_view key) {
  const std::optional<std::string> text = FieldOf(line, key);
  return text ? std::max(0.0, std::strtod(text->c_str(), nullptr)) : 0.0;
}

const char* ExitOf(std::string_view outcome) {
  if (outcome.ends_with(", timed out")) {
    return "timed_out";
  }
  if (outcome == "exit 0") {
    return "zero";
  }
  if (outcome.starts_with("exit ")) {
    return "nonzero";
  }
  if (outcome.starts_with("signal ")) {
    return "signal";
  }
  return outcome.starts_with("lost") ? "lost" : "refused";
}

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry;

  Family<Counter>& CounterOf(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Gauge>& GaugeOf(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& HistogramOf(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  Family<Counter>& calls =
      CounterOf("creel_calls_total", "Tool calls that were decided, by tool and verdict.");
  ByLabel<kTools.size()> allowed{calls, "tool", kTools, {{"verdict", "allow"}}};
  ByLabel<kTools.size()> denied{calls, "tool", kTools, {{"verdict", "deny"}}};
  Histogram& exec_seconds =
      HistogramOf("creel_exec_duration_seconds",
                  "Time from the decision about a command to its end, as its caller saw it.")
          .Add({}, kSeconds);
  Histogram& file_seconds =
      HistogramOf("creel_file_call_duration_seconds",
                  "Time from the decision about any other tool call to its end.")
          .Add({}, kSeconds);
  ByLabel<kExits.size()> exits{
      CounterOf("creel_exec_exits_total", "Commands that ended, by how they did."), "outcome",
      kExits};
  ByLabel<kSessionEvents.size()> session_events{
      CounterOf("creel_sandbox_events_total", "What happened to sandboxes."), "event",
      kSessionEvents};
  ByLabel<kDoors.size()> acts{
      CounterOf("creel_operator_acts_total", "What operators did, by the door they used."), "door",
      kDoors};
  ByLabel<kPeerDoors.size()> dropped{
      CounterOf("creel_peers_dropped_total",
                "Connections that were dropped because they broke a bound; those that the record "
                "left out are counted too."),
      "door", kPeerDoors};
  Counter& incidents =
      CounterOf("creel_incidents_opened_total", "Incidents that were opened.").Add({});
  Counter& record_lines =
      CounterOf("creel_record_lines_total", "Lines written to the record.").Add({});

  Family<Counter>& egress =
      CounterOf("creel_egress_requests_total",
                "Requests and tunnels of sandboxes that were decided, by kind and verdict.");
  ByLabel<kEgressKinds.size()> egress_allowed{egress, "kind", kEgressKinds, {{"verdict", "allow"}}};
  ByLabel<kEgressKinds.size()> egress_denied{egress, "kind", kEgressKinds, {{"verdict", "deny"}}};
  Family<Counter>& egress_bytes = CounterOf(
      "creel_egress_bytes_total", "Content that went through, counted when its connection ends.");
  Counter& egress_up = egress_bytes.Add({{"direction", "up"}});
  Counter& egress_down = egress_bytes.Add({{"direction", "down"}});

  Family<Gauge>& sandboxes = GaugeOf("creel_sandboxes", "Sandboxes by their state.");
  Gauge& opening = sandboxes.Add({{"state", "opening"}});
  Gauge& running = sandboxes.Add({{"state", "running"}});
  Gauge& frozen = sandboxes.Add({{"state", "frozen"}});
  Gauge& lost = sandboxes.Add({{"state", "lost"}});
  Gauge& closing = sandboxes.Add({{"state", "closing"}});
  Gauge& commands = GaugeOf("creel_commands_running", "Commands that run in sandboxes.").Add({});
  Gauge& cpu = GaugeOf("creel_sandboxes_cpu_cores", "Processor cores that sandboxes use.").Add({});
  Gauge& memory =
      GaugeOf("creel_sandboxes_memory_bytes", "Memory that sandboxes use, without dropped cache.")
          .Add({});
  Gauge& disk =
      GaugeOf("creel_sandboxes_workspace_bytes", "Disk that sandboxes' workspaces use.").Add({});
  Gauge& approvals =
      GaugeOf("creel_approvals_waiting", "Tool calls that wait for the operator.").Add({});
  Gauge& pairings = GaugeOf("creel_pairings_waiting", "Senders who wait to be let in.").Add({});
  Gauge& open_incidents = GaugeOf("creel_incidents_open", "Incidents that have not ended.").Add({});
  Gauge& read_only =
      GaugeOf("creel_read_only_switches", "Switches of read-only mode that are on.").Add({});
  Gauge& writable = GaugeOf("creel_record_writable",
                            "1 if the record can be written; else no call is carried out.")
                        .Add({});
  Gauge& pages = GaugeOf("creel_pages_open", "Pages that are open in browsers.").Add({});

  Gauge& build = GaugeOf("creel_build_info", "Always 1; the version is a label.")
                     .Add({{"version", CREEL_VERSION}});
  Counter& cpu_seconds =
      CounterOf("process_cpu_seconds_total", "User and system time of the supervisor.").Add({});
  Gauge& resident =
      GaugeOf("process_resident_memory_bytes", "Resident memory of the supervisor.").Add({});
  Gauge& virtual_memory =
      GaugeOf("process_virtual_memory_bytes", "Virtual memory of the supervisor.").Add({});
  Gauge& fds = GaugeOf("process_open_fds", "Open files of the supervisor.").Add({});
  Gauge& threads = GaugeOf("process_threads", "Threads of the supervisor.").Add({});
  Gauge& start =
      GaugeOf("process_start_time_seconds", "When the supervisor started, in Unix time.").Add({});
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) { impl_->build.Set(1); }
Metrics::~Metrics() = default;

void Metrics::OnRecord(std::string_view line) {
  const std::optional<LineFrame> frame = ParseFrame(line);
  if (!frame) {
    return;
  }
  impl_->record_lines.Increment();
  const std::string_view event = frame->event;
  if (event.starts_with("call.")) {
    const std::string tool = FieldOf(line, "tool").value_or("");
    if (event == "call.allowed") {
      impl_->allowed.Of(tool, "other").Increment();
    } else if (event == "call.denied") {
      impl_->denied.Of(tool, "other").Increment();
    } else if (event == "call.ended") {
      const bool exec = tool == "exec";
      if (exec) {
        impl_->exits.Of(ExitOf(FieldOf(line, "outcome").value_or("")), "refused").Increment();
      }
      if (const std::optional<double> seconds = SecondsOf(line)) {
        (exec ? impl_->exec_seconds : impl_->file_seconds).Observe(*seconds);
      }
    }
    return;
  }
  if (event.starts_with("session.")) {
    const std::string_view what = event.substr(8);
    if (std::find(kSessionEvents.begin(), kSessionEvents.end(), what) != kSessionEvents.end()) {
      impl_->session_events.Of(what, "closed").Increment();
    }
    return;
  }
  if (event == "egress.allowed" || event == "egress.denied") {
    (event == "egress.allowed" ? impl_->egress_allowed : impl_->egress_denied)
        .Of(FieldOf(line, "kind").value_or(""), "request")
        .Increment();
  } else if (event == "egress.ended") {
    impl_->egress_up.Increment(NumberOf(line, "bytes_up"));
    impl_->egress_down.Increment(NumberOf(line, "bytes_down"));
  } else if (event == "operator.act") {
    const std::string by = FieldOf(line, "by").value_or("");
    impl_->acts.Of(by.starts_with("page") ? "page" : by, "other").Increment();
  } else if (event == "incident.opened") {
    impl_->incidents.Increment();
  } else if (event == "peer.dropped") {
    impl_->dropped.Of(FieldOf(line, "door").value_or(""), "other")
        .Increment(1 + NumberOf(line, "left_out"));
  }
}

void Metrics::SetPresent(const Present& present) {
  impl_->opening.Set(static_cast<double>(present.opening));
  impl_->running.Set(static_cast<double>(present.running));
  impl_->frozen.Set(static_cast<double>(present.frozen));
  impl_->lost.Set(static_cast<double>(present.lost));
  impl_->closing.Set(static_cast<double>(present.closing));
  impl_->commands.Set(static_cast<double>(present.commands));
  impl_->approvals.Set(static_cast<double>(present.approvals_waiting));
  impl_->pairings.Set(static_cast<double>(present.pairings_waiting));
  impl_->open_incidents.Set(static_cast<double>(present.incidents_open));
  impl_->read_only.Set(static_cast<double>(present.read_only_switches));
  impl_->cpu.Set(present.cpu_cores);
  impl_->memory.Set(static_cast<double>(present.memory_bytes));
  impl_->disk.Set(static_cast<double>(present.disk_bytes));
  impl_->writable.Set(present.record_writable ? 1 : 0);
}

void Metrics::OnPage(int change) { impl_->pages.Increment(change); }

std::string Metrics::Scrape() {
  const Process process = LookAtProcess();
  if (const double more = process.cpu_seconds - impl_->cpu_seconds.Value(); more > 0) {
    impl_->cpu_seconds.Increment(more);
  }
  impl_->resident.Set(process.resident_bytes);
  impl_->virtual_memory.Set(process.virtual_bytes);
  impl_->fds.Set(process.open_fds);
  impl_->threads.Set(process.threads);
  impl_->start.Set(process.start_seconds);
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace creel::web
