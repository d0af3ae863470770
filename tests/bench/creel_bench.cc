// `make bench`: Creel beside what it is compared with, in one run on one machine. Prints a table
// and writes build/bench.json. Times are medians; machines are noisy, so the figures are ratios
// where they can be. Usage: creel_bench [OUT.json [PART…]], with parts policy, exec, cli, cold,
// throughput, memory, egress, capture and those of density_bench.h; all of them without.
#include <absl/synchronization/mutex.h>
#include <dirent.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/events.h"
#include "tests/bench/capture_bench.h"
#include "tests/bench/density_bench.h"
#include "tests/bench/egress_bench.h"
#include "tests/bench/engine_http.h"
#include "tests/bench/figures.h"
#include "tests/bench/guard_share.h"
#include "tests/bench/policy_bench.h"
#include "tests/bench/spawner.h"
#include "tests/integration/support/supervisor.h"

extern char** environ;

namespace creel::bench {
namespace {

using testing::Outcome;
using testing::RunProgram;
using testing::Supervisor;

constexpr char kSession[] = "agent:main:bench:group:1";

std::string SessionName(int number) { return "agent:main:bench:dm:" + std::to_string(number); }

void Require(bool holds, const std::string& what) {
  if (!holds) {
    throw std::runtime_error(what);
  }
}

void SpawnProcess(const std::vector<std::string>& argv) {
  std::vector<char*> arguments;
  for (const std::string& each : argv) {
    arguments.push_back(const_cast<char*>(each.c_str()));
  }
  arguments.push_back(nullptr);
  pid_t child = -1;
  Require(posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ) == 0,
          "cannot run " + argv[0]);
  int status = 0;
  waitpid(child, &status, 0);
  Require(status == 0, argv[0] + " failed");
}

// A figure of /proc/PID/smaps_rollup in kB, several fields added up.
double SmapsKb(pid_t pid, const std::vector<std::string>& fields) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  double sum = 0;
  for (std::string line; std::getline(file, line);) {
    for (const std::string& field : fields) {
      if (line.rfind(field + ":", 0) == 0) {
        sum += std::atof(line.c_str() + field.size() + 1);
      }
    }
  }
  return sum;
}

double StatusValue(pid_t pid, const std::string& field) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(field + ":", 0) == 0) {
      return std::atof(line.c_str() + field.size() + 1);
    }
  }
  return 0;
}

// Processor time of a process, in milliseconds.
double CpuMs(pid_t pid) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  DIR* const dir = opendir(tasks.c_str());
  double nanoseconds = 0;
  for (dirent* each; dir != nullptr && (each = readdir(dir)) != nullptr;) {
    double ran = 0;
    std::ifstream(tasks + "/" + each->d_name + "/schedstat") >> ran;
    nanoseconds += ran;
  }
  if (dir != nullptr) {
    closedir(dir);
  }
  return nanoseconds / 1e6;
}

pid_t InitPid(EngineHttp& engine, const std::string& container) {
  const auto info = nlohmann::json::parse(engine.Call("GET", "/containers/" + container + "/json"));
  return info.at("State").at("Pid");
}

Samples ExecLatency(Report& report, Spawner& spawner, Supervisor& supervisor, EngineHttp& engine) {
  const std::string container = supervisor.Get(kSession).container_id();
  Samples bare;
  Samples creel;
  Samples docker;
  // In turn, so that a noisy moment meets all three.
  for (int i = 0; i < 1000; ++i) {
    bare.Add(spawner.SpawnMs());
    creel.Add(TimeMs([&] { Require(supervisor.Exec(kSession, {"true"}).code() == 0, "exec"); }));
    if (i % 25 == 0) {
      docker.Add(TimeMs([&] { Require(engine.Exec(container, R"(["true"])") == 0, "docker"); }));
    }
  }
  report.Times("fork, exec, wait on the host", bare);
  report.Times("exec through Creel, persistent client", creel);
  report.Times("exec through the engine's API", docker);
  report.Figure("exec_over_spawn", creel.Median() / bare.Median(), "<= 2.5",
                "exec of true through the supervisor, over a bare spawn");
  report.Figure("docker_exec_over_exec", docker.Median() / creel.Median(), ">= 40",
                "the engine's exec API over Creel's exec");
  return creel;
}

// What the record adds to a call: its two lines, written as creeld writes them, beside its own.
void RecordCost(Report& report, Supervisor& supervisor, const Samples& exec) {
  SystemClock clock;
  const auto audit = AuditLog::Open(
      {.directory = supervisor.state_dir() + "/bench-record", .install_id = "bench"}, clock);
  Require(audit.ok(), "the record for the bench");
  Samples both;
  for (int i = 0; i < 2000; ++i) {
    const CallFacts call{.number = static_cast<uint64_t>(i),
                         .session = kSession,
                         .sender = "whatsapp:+15555550123",
                         .tool = "exec",
                         .summary = "true",
                         .tool_call_id = "call-1",
                         .rule = "placement.non-main"};
    both.Add(TimeMs([&] {
      Require((*audit)->Append(CallAllowed(call)).ok(), "append");
      (*audit)->Keep(CallEnded(call, "0123456789abcdef", "exit 0", std::chrono::microseconds(900)));
    }));
  }
  report.Times("two lines of the record", both);
  report.Figure("audit_overhead_pct", 100 * both.Median() / exec.Median(), "<= 5",
                "both lines of the record of a call, over the call (exec of true)");
}

void CliLatency(Report& report, Supervisor& supervisor) {
  const std::string container = supervisor.Get(kSession).container_id();
  Samples creel;
  Samples docker;
  for (int i = 0; i < 40; ++i) {
    creel.Add(TimeMs([&] {
      SpawnProcess({CREEL_TEST_CLI, "--socket", supervisor.run_dir() + "/gateway.sock", "exec",
                    kSession, "--", "true"});
    }));
    if (i % 2 == 0) {
      docker.Add(TimeMs([&] { SpawnProcess({"docker", "exec", container, "true"}); }));
    }
  }
  report.Times("creel exec K -- true, whole process", creel);
  report.Times("docker exec C true, whole process", docker);
  report.Figure("docker_cli_over_creel_cli", docker.Median() / creel.Median(), ">= 8",
                "docker exec over creel exec, whole processes");
}

void ColdOpen(Report& report, Supervisor& supervisor, EngineHttp& engine) {
  // The very same container, made by hand from what the engine says of a living one.
  const auto info = nlohmann::json::parse(
      engine.Call("GET", "/containers/" + supervisor.Get(kSession).container_id() + "/json"));
  nlohmann::json body = info.at("Config");
  body["HostConfig"] = info.at("HostConfig");
  body["Labels"] = {{"creel.bench", "1"}};
  // Creel takes its slots in the host's tree away once a container has them; here they stay, empty.
  for (const auto& mount : body["HostConfig"]["Mounts"]) {
    const std::filesystem::path source = mount.value("Source", "");
    if (!source.empty() && !std::filesystem::exists(source)) {
      const bool file = mount["Target"] == "/etc/hosts";
      std::filesystem::create_directories(file ? source.parent_path() : source);
      if (file) {
        std::ofstream(source) << "127.0.0.1 localhost\n";
      } else if (mount["Target"] == "/.creel") {
        std::filesystem::copy_file(CREEL_TEST_SHIM, source / "creel-shim");
      }
    }
  }
  Samples raw;
  Samples cold;
  for (int i = 0; i < 15; ++i) {
    std::string id;
    raw.Add(TimeMs([&] {
      id = nlohmann::json::parse(engine.Call("POST", "/containers/create", body.dump())).at("Id");
      engine.Call("POST", "/containers/" + id + "/start");
    }));
    engine.Call("DELETE", "/containers/" + id + "?force=1");
    cold.Add(TimeMs(
        [&] { Require(supervisor.Exec(SessionName(i), {"true"}).code() == 0, "cold open"); }));
    Require(supervisor.Close(SessionName(i)).ok(), "close");
  }
  report.Times("raw create and start of the same container", raw);
  report.Times("cold open until the first command answered", cold);
  report.Figure("cold_open_over_raw", cold.Median() / raw.Median(), "<= 1.15",
                "cold open with its first command, over raw create and start");
}

void Throughput(Report& report, Supervisor& supervisor, EngineHttp& engine) {
  const pid_t shim = InitPid(engine, supervisor.Get(kSession).container_id());
  constexpr double kBytes = 1024.0 * 1024 * 1024;
  Samples gbps;
  double all_ms = 0;
  for (int i = 0; i < 5; ++i) {
    const double all_before = CpuMs(supervisor.pid()) + CpuMs(shim) + CpuMs(getpid());
    grpc::ClientContext context;
    const auto stream = supervisor.gateway().Exec(&context);
    gateway::v1::ExecRequest request;
    request.mutable_start()->mutable_context()->set_session(kSession);
    request.mutable_start()->mutable_spec()->set_overflow(shim::v1::OVERFLOW_BLOCK);
    for (const char* word : {"head", "-c", "1073741824", "/dev/zero"}) {
      request.mutable_start()->mutable_spec()->add_argv(word);
    }
    double bytes = 0;
    const double ms = TimeMs([&] {
      stream->Write(request);
      gateway::v1::ExecResponse response;
      while (stream->Read(&response)) {
        bytes += static_cast<double>(response.event().output().data().size());
      }
      Require(stream->Finish().ok(), "stream");
    });
    Require(bytes == kBytes, "bytes of the stream are missing");
    gbps.Add(kBytes / ms / 1e6);
    all_ms += CpuMs(supervisor.pid()) + CpuMs(shim) + CpuMs(getpid()) - all_before;
  }
  report.Figure("exec_stdout_gbps", gbps.Median(), ">= 0.5",
                "stdout of one command through the supervisor, GB/s");
  // Each of the five runs brought a GiB in from the shim.
  report.Figure("guard_overhead_pct", 100 * 5 * GuardMsPerGib() / all_ms, "<= 10",
                "the frame guard's share of all processor time of that stream");

  Require(
      supervisor.Exec(kSession, {"dd", "if=/dev/zero", "of=big", "bs=1M", "count=256"}).code() == 0,
      "dd");
  Samples read;
  for (int i = 0; i < 5; ++i) {
    size_t bytes = 0;
    const double ms = TimeMs([&] {
      grpc::ClientContext context;
      gateway::v1::ReadFileRequest request;
      request.mutable_context()->set_session(kSession);
      request.mutable_args()->set_path("big");
      const auto reader = supervisor.gateway().ReadFile(&context, request);
      gateway::v1::ReadFileResponse response;
      while (reader->Read(&response)) {
        bytes += response.chunk().data().size();
      }
      Require(reader->Finish().ok(), "read");
    });
    Require(bytes == 256u << 20, "bytes of the file are missing");
    read.Add(static_cast<double>(bytes) / ms / 1e6);
  }
  report.Figure("file_read_gbps", read.Median(), ">= 0.5",
                "one file of 256 MiB read through the supervisor, GB/s");
}

void Memory(Report& report, Supervisor& supervisor, EngineHttp& engine) {
  for (int i = 0; i < 50; ++i) {
    Require(supervisor.Exec(SessionName(i), {"true"}).code() == 0, "50 sessions");
  }
  const pid_t shim = InitPid(engine, supervisor.Get(SessionName(0)).container_id());
  report.Figure("shim_private_mb", SmapsKb(shim, {"Private_Clean", "Private_Dirty"}) / 1024, "<= 2",
                "private memory of an idle shim, MB");
  // What the streams before this took goes back when creeld has had nothing to do for half a
  // minute.
  std::this_thread::sleep_for(std::chrono::seconds(35));
  report.Figure("supervisor_mb_50", StatusValue(supervisor.pid(), "VmRSS") / 1024, "<= 40",
                "resident memory of the supervisor with 50 idle sessions, MB");

  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<
      grpc::ClientReaderWriter<gateway::v1::ExecRequest, gateway::v1::ExecResponse>>>
      streams;
  for (int i = 0; i < 200; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(supervisor.gateway().Exec(contexts.back().get()));
    gateway::v1::ExecRequest request;
    request.mutable_start()->mutable_context()->set_session(SessionName(i % 20));
    request.mutable_start()->mutable_spec()->add_argv("sleep");
    request.mutable_start()->mutable_spec()->add_argv("1000");
    streams.back()->Write(request);
    gateway::v1::ExecResponse started;
    Require(streams.back()->Read(&started), "200 streams");
  }
  report.Figure("threads_200_streams", StatusValue(supervisor.pid(), "Threads"), "<= 64",
                "threads of the supervisor with 200 streams open");
  for (int i = 0; i < 200; ++i) {
    contexts[static_cast<size_t>(i)]->TryCancel();
    gateway::v1::ExecResponse rest;
    while (streams[static_cast<size_t>(i)]->Read(&rest)) {
    }
    static_cast<void>(streams[static_cast<size_t>(i)]->Finish());
  }
}

// What wants a supervisor and a session, beside the engine's own ways.
void MeasureWall(Report& report, const std::function<bool(const char*)>& wants) {
  Spawner spawner(CREEL_BENCH_SPAWN_SERVER);
  EngineHttp engine("/var/run/docker.sock");
  Supervisor supervisor({.sandbox_config = "  limits:\n    workspace: 1GiB\n"});
  Require(supervisor.Exec(kSession, {"true"}).code() == 0, "the first exec: " + supervisor.Log());
  if (wants("exec")) {
    const Samples exec = ExecLatency(report, spawner, supervisor, engine);
    RecordCost(report, supervisor, exec);
  }
  if (wants("cli")) {
    CliLatency(report, supervisor);
  }
  if (wants("cold")) {
    ColdOpen(report, supervisor, engine);
  }
  if (wants("throughput")) {
    Throughput(report, supervisor, engine);
  }
  if (wants("memory")) {
    Memory(report, supervisor, engine);
  }
}

constexpr std::array<const char*, 5> kWallParts{"exec", "cli", "cold", "throughput", "memory"};

// `parts`: those alone; empty: all. The names are those here and those of density_bench.h.
int Main(const std::string& output, const std::set<std::string>& parts) {
  const auto wants = [&parts](const char* part) { return parts.empty() || parts.count(part) > 0; };
  Report report;
  if (wants("policy")) {
    PolicyFigures(report);
  }
  if (std::any_of(kWallParts.begin(), kWallParts.end(), wants)) {
    MeasureWall(report, wants);
  }
  if (wants("egress")) {
    MeasureEgress(report);
  }
  if (wants("capture")) {
    MeasureCapture(report);
  }
  if (parts.empty()) {
    Require(MeasureDensity(report, ""), "the density figures");
  }
  for (const std::string& part : parts) {
    const bool done = part == "policy" || part == "egress" || part == "capture" ||
                      std::find(kWallParts.begin(), kWallParts.end(), part) != kWallParts.end();
    Require(done || MeasureDensity(report, part), "there is no part '" + part + "'");
  }
  report.PrintFigures();
  report.WriteJson(output);
  std::printf("\nwritten to %s\n", output.c_str());
  return 0;
}

}  // namespace
}  // namespace creel::bench

int main(int argc, char** argv) {
  // As creeld does; a gateway's gRPC is not built with these checks.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  try {
    return creel::bench::Main(
        argc > 1 ? argv[1] : "build/bench.json",
        argc > 2 ? std::set<std::string>(argv + 2, argv + argc) : std::set<std::string>());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench: %s\n", error.what());
    return 1;
  }
}
