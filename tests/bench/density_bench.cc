#include "tests/bench/density_bench.h"

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tests/bench/engine_http.h"
#include "tests/integration/support/pool.h"

namespace creel::bench {
namespace {

using std::chrono::duration;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Steady = std::chrono::steady_clock;
using testing::Eventually;
using testing::PoolFilled;
using testing::Supervisor;
using testing::SupervisorOptions;

constexpr char kEngine[] = "/var/run/docker.sock";
// Openings that creeld carries out at once.
constexpr int kParallel = 16;

void Require(bool holds, const std::string& what) {
  if (!holds) {
    throw std::runtime_error(what);
  }
}

std::string Session(int i) { return fmt::format("agent:main:bench:dm:{}", i); }

SupervisorOptions With(int pool, const std::string& pause = "off") {
  return {.extra_config = fmt::format(
              "sessions:\n  max: 1000\n  max_per_sender: 1000\n  opens_per_minute: 60000\n"
              "  pause_after: {}\n  warm_pool: {{size: {}, refill_rate: 60000, "
              "memory_ceiling: 8GiB}}\n",
              pause, pool),
          .sandbox_config = "  limits:\n    workspace: 1GiB\n"};
}

double True(Supervisor& supervisor, const std::string& session) {
  bool ok = false;
  const double ms = TimeMs([&] { ok = supervisor.Exec(session, {"true"}).code() == 0; });
  Require(ok, "true in " + session + ":\n" + supervisor.Log());
  return ms;
}

// The fields of /proc/PID/smaps_rollup that are this process's alone, in KiB.
double PrivateKb(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/smaps_rollup", pid));
  double sum = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("Private_", 0) == 0 && line.find("Hugetlb") == std::string::npos) {
      sum += std::atof(line.c_str() + line.find(':') + 1);
    }
  }
  return sum;
}

// Processor time of a process and its threads, in milliseconds.
double CpuMs(pid_t pid) {
  double nanoseconds = 0;
  std::error_code gone;
  for (auto at = std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), gone);
       at != std::filesystem::directory_iterator(); at.increment(gone)) {
    double ran = 0;
    std::ifstream(at->path() / "schedstat") >> ran;
    nanoseconds += ran;
  }
  return nanoseconds / 1e6;
}

pid_t ParentOf(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("PPid:", 0) == 0) {
      return std::atoi(line.c_str() + 5);
    }
  }
  return 0;
}

// The same container as that of `session`, as the engine takes it, without what Creel mounts late
// or takes away again.
class RawContainer {
 public:
  RawContainer(Supervisor& supervisor, const std::string& session) {
    EngineHttp engine(kEngine);
    const auto info = nlohmann::json::parse(
        engine.Call("GET", "/containers/" + supervisor.Get(session).container_id() + "/json"));
    nlohmann::json body = info.at("Config");
    body["HostConfig"] = info.at("HostConfig");
    body["Labels"] = {{"creel.bench", "1"}};
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
    body_ = body.dump();
  }

  // Returns its id.
  std::string CreateAndStart(EngineHttp& engine) const {
    const std::string id =
        nlohmann::json::parse(engine.Call("POST", "/containers/create", body_)).at("Id");
    engine.Call("POST", "/containers/" + id + "/start");
    return id;
  }

 private:
  std::string body_;
};

// `work` for 0 … count-1, by so many threads that begin at once. Returns how long the whole took.
double Parallel(int count, int threads, const std::function<void(int)>& work) {
  std::atomic<int> next{0};
  std::atomic<bool> failed{false};
  std::string why;
  std::barrier begin(threads + 1);
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&] {
      begin.arrive_and_wait();
      for (int i = next++; i < count && !failed; i = next++) {
        try {
          work(i);
        } catch (const std::exception& error) {
          if (!failed.exchange(true)) {
            why = error.what();
          }
        }
      }
    });
  }
  begin.arrive_and_wait();
  const double ms = TimeMs([&] {
    for (std::thread& thread : all) {
      thread.join();
    }
  });
  Require(!failed, why);
  return ms;
}

void CloseAll(Supervisor& supervisor, int count) {
  Parallel(count, 8, [&](int i) { static_cast<void>(supervisor.Close(Session(i))); });
}

void Opens(Report& report) {
  Samples warm;
  Samples warm_open;
  Samples warm_first;
  Samples cold;
  {
    Supervisor pooled(With(10));
    Supervisor bare(With(0));
    True(bare, Session(999));  // the first makes the image of a workspace
    for (int round = 0; round < 3; ++round) {
      Require(PoolFilled(pooled, 10), "the pool is not filled:\n" + pooled.Log());
      for (int i = 0; i < 10; ++i) {
        if (i % 2 == 0) {
          warm.Add(True(pooled, Session(i)));
        } else {
          gateway::v1::OpenSessionResponse response;
          warm_open.Add(
              TimeMs([&] { Require(pooled.Open(Session(i), &response).ok(), "a warm opening"); }));
          warm_first.Add(True(pooled, Session(i)));
        }
      }
      CloseAll(pooled, 10);
      for (int i = 0; i < 5; ++i) {
        cold.Add(True(bare, Session(i)));
        Require(bare.Close(Session(i)).ok(), "close");
      }
    }
  }
  report.Times("warm: open and first command", warm);
  report.Times("warm: open", warm_open);
  report.Times("warm: first command after it", warm_first);
  report.Times("cold: open and first command", cold);
  report.Figure("warm_open_ms", warm.Median(), "<= 10",
                "a session from the warm pool, until its first command has answered, ms");
  report.Figure("cold_over_warm", cold.Median() / warm.Median(), ">= 25",
                "the same without a pool, over that");

  Supervisor idle(With(0, "1s"));
  Samples resumed;
  Samples awake;
  for (int i = 0; i < 5; ++i) {
    True(idle, Session(i));
  }
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 5; ++i) {
      const std::string container = idle.Get(Session(i)).container_id();
      Require(Eventually([&] { return testing::Look(container).paused; }, seconds(30)),
              "a sandbox that nobody calls is not paused");
    }
    for (int i = 0; i < 5; ++i) {
      resumed.Add(True(idle, Session(i)));
      awake.Add(True(idle, Session(i)));
    }
  }
  report.Times("from pause: first command", resumed);
  report.Times("awake: next command", awake);
  report.Figure("resume_ms", resumed.Median(), "<= 40",
                "a command in a sandbox that was paused while idle, ms");
}

void Burst(Report& report) {
  constexpr int kCount = 50;
  {
    Supervisor pooled(With(kCount));
    Samples bursts;
    for (int round = 0; round < 2; ++round) {
      Require(PoolFilled(pooled, kCount, seconds(180)), "the pool is not filled:\n" + pooled.Log());
      bursts.Add(Parallel(kCount, kCount, [&](int i) { True(pooled, Session(i)); }));
      if (round == 0) {
        CloseAll(pooled, kCount);
      }
    }
    report.Times("fifty sessions opened at once, from the pool", bursts);
    report.Figure("burst50_ms", *std::min_element(bursts.values().begin(), bursts.values().end()),
                  "<= 300",
                  "fifty openings at once from a pool of fifty, until the last answered, ms");
  }
  Supervisor empty(With(0));
  True(empty, Session(999));
  const RawContainer raw_container(empty, Session(999));
  Samples cold;
  Samples raw;
  for (int round = 0; round < 2; ++round) {
    std::vector<std::string> made(kCount);
    // Each thread its own connection, as creeld has.
    raw.Add(Parallel(kCount, kParallel, [&](int i) {
      static thread_local EngineHttp engine(kEngine);
      made[static_cast<size_t>(i)] = raw_container.CreateAndStart(engine);
    }));
    Parallel(kCount, 8, [&](int i) {
      static thread_local EngineHttp engine(kEngine);
      engine.Call("DELETE", "/containers/" + made[static_cast<size_t>(i)] + "?force=1");
    });
    cold.Add(Parallel(kCount, kCount, [&](int i) { True(empty, Session(i)); }));
    CloseAll(empty, kCount);
  }
  report.Times("fifty sessions opened at once, cold", cold);
  report.Times("fifty raw create and start, 16 at once", raw);
  report.Figure("burst50_cold_over_raw", cold.Median() / raw.Median(), "<= 1.1",
                "fifty openings at once without a pool, over fifty raw creates and starts");
}

void Idle(Report& report) {
  Supervisor one(With(0));
  Supervisor many(With(0));
  True(one, Session(0));
  True(many, Session(0));
  std::this_thread::sleep_for(seconds(2));
  const double alone_kb = PrivateKb(many.pid());
  const auto compare = [&](int sessions) {
    Samples with_one;
    Samples with_many;
    for (int i = 0; i < 1000; ++i) {
      with_one.Add(True(one, Session(0)));
      with_many.Add(True(many, Session(0)));
    }
    report.Times(fmt::format("exec of true with 1 session, beside {}", sessions), with_one);
    report.Times(fmt::format("exec of true with {} idle sessions", sessions), with_many);
    return std::pair(with_many.Median() / with_one.Median(),
                     with_many.Quantile(0.99) / with_one.Quantile(0.99));
  };
  const auto open_up_to = [&](int from, int to) {
    Parallel(to - from, 8, [&](int i) { True(many, Session(from + i)); });
    // Threads and buffers of the opening go.
    std::this_thread::sleep_for(seconds(15));
  };
  open_up_to(1, 50);
  report.Figure("exec_50_over_1", compare(50).first, "",
                "exec of true with 50 idle sessions, over that with one, medians");
  open_up_to(50, 200);
  std::vector<pid_t> shims;
  std::vector<pid_t> keepers;
  EngineHttp engine(kEngine);
  for (int i = 0; i < 200; ++i) {
    const auto info = nlohmann::json::parse(
        engine.Call("GET", "/containers/" + many.Get(Session(i)).container_id() + "/json"));
    shims.push_back(info.at("State").at("Pid"));
    keepers.push_back(ParentOf(shims.back()));
  }
  double shim_kb = 0;
  double keeper_kb = 0;
  for (size_t i = 0; i < shims.size(); ++i) {
    shim_kb += PrivateKb(shims[i]) / 200;
    keeper_kb += PrivateKb(keepers[i]) / 200;
  }
  const double supervisor_kb = (PrivateKb(many.pid()) - alone_kb) / 199;
  const auto used = [&] {
    double ms = CpuMs(many.pid());
    for (const pid_t shim : shims) {
      ms += CpuMs(shim);
    }
    return ms;
  };
  std::this_thread::sleep_for(seconds(3));
  const double before = used();
  const auto began = Steady::now();
  std::this_thread::sleep_for(seconds(10));
  const double cpu_ms = used() - before;
  const double passed_ms = duration<double, std::milli>(Steady::now() - began).count();
  report.Figure("idle_shim_mb", shim_kb / 1024, "<= 2",
                "private memory of an idle shim, mean of 200, MB");
  report.Figure("idle_supervisor_kb", supervisor_kb, "<= 100",
                "private memory that an idle session adds to the supervisor, of 200, kB");
  report.Figure("idle_cpu_pct", 100 * cpu_ms / passed_ms, "<= 1",
                "processor time of supervisor and 200 idle shims over ten seconds, % of one core");
  report.Figure("idle_session_mb", (shim_kb + keeper_kb + supervisor_kb) / 1024, "",
                "private memory of all that a session adds, the engine's process included, MB");
  report.Figure("idle_engine_mb", keeper_kb / 1024, "",
                "of that, the engine's process for each container, MB");
  const auto [median, p99] = compare(200);
  report.Figure("exec_200_over_1", median, "<= 1.2",
                "exec of true with 200 idle sessions, over that with one, medians");
  report.Figure("exec_p99_200_over_1", p99, "<= 3", "the same, 99th percentiles");
  CloseAll(many, 200);
}

void Mixed(Report& report) {
  constexpr int kSessions = 50;
  constexpr int kRate = 1000;
  constexpr seconds kTime{30};
  Supervisor supervisor(With(0));
  Parallel(kSessions, 8, [&](int i) { True(supervisor, Session(i)); });
  // Each session gets its share of the rate at fixed points in time; what comes late counts as late
  // from there.
  std::atomic<int> wrong{0};
  std::mutex mutex;
  std::string first_wrong;
  const auto expect = [&](const testing::Outcome& outcome, std::string_view out) {
    if (outcome.code() != 0 || outcome.out != out) {
      const std::lock_guard lock(mutex);
      if (wrong++ == 0) {
        first_wrong = fmt::format("code {}, {} bytes of output, {}: {}", outcome.code(),
                                  outcome.out.size(), outcome.exit.ShortDebugString(),
                                  outcome.status.error_message());
      }
    }
  };
  std::vector<Samples> latencies(kSessions);
  const auto begin = Steady::now() + milliseconds(200);
  const auto step = std::chrono::nanoseconds(seconds(1)) * kSessions / kRate;
  const int each = static_cast<int>(kTime / step);
  const double all_ms = Parallel(kSessions, kSessions, [&](int i) {
    Samples& mine = latencies[static_cast<size_t>(i)];
    for (int n = 0; n < each; ++n) {
      const auto due = begin + step * n + step * i / kSessions;
      std::this_thread::sleep_until(due);
      // A mix as tools make it: a bare command, a shell with some output, input that comes back.
      switch (n % 4) {
        case 0:
          expect(supervisor.Shell(Session(i), "echo out; echo err >&2"), "out\n");
          break;
        default:
          expect(supervisor.Exec(Session(i), {"true"}), "");
      }
      mine.Add(duration<double, std::milli>(Steady::now() - due).count());
    }
  });
  Samples all;
  for (const Samples& mine : latencies) {
    for (const double ms : mine.values()) {
      all.Add(ms);
    }
  }
  Require(wrong == 0, fmt::format("{} of {} commands failed, first: {}\n{}", wrong.load(),
                                  all.values().size(), first_wrong, supervisor.Log()));
  report.Times("1,000 commands a second over 50 sessions", all);
  report.Figure("mixed_p99_ms", all.Quantile(0.99), "<= 40",
                "1,000 commands a second over 50 sessions for 30 s: 99th percentile from when each "
                "was due, ms");
  report.Figure("mixed_rate", 1000.0 * static_cast<double>(all.values().size()) / all_ms, "",
                "of these, carried out in a second");
  // What the cores can do at most: a loop that forks and execs in those containers, and Creel's own
  // best, each with as many at once.
  constexpr int kLoop = 200;
  const double bare_ms = Parallel(kSessions, kSessions, [&](int i) {
    Require(supervisor
                    .Shell(Session(i), fmt::format("i=0; while [ $i -lt {} ]; do /bin/true; "
                                                   "i=$((i+1)); done",
                                                   kLoop))
                    .code() == 0,
            "the bare loop");
  });
  const double creel_ms = Parallel(kSessions * kLoop, kSessions,
                                   [&](int i) { True(supervisor, Session(i % kSessions)); });
  report.Figure("mixed_bare_rate", kSessions * kLoop * 1000 / bare_ms, "",
                "commands a second of a bare fork and exec loop in those containers");
  report.Figure("mixed_over_bare", bare_ms / creel_ms, "",
                "Creel's highest rate over that of the bare loop; the bar is 0.6 where 1,000 a "
                "second are out of reach");
  CloseAll(supervisor, kSessions);
}

}  // namespace

bool MeasureDensity(Report& report, const std::string& part) {
  bool any = false;
  const auto run = [&](const char* name, void (*measure)(Report&)) {
    if (part.empty() || part == name) {
      measure(report);
      any = true;
    }
  };
  run("open", Opens);
  run("burst", Burst);
  run("idle", Idle);
  run("mixed", Mixed);
  return any;
}

}  // namespace creel::bench
