// Everything at once for a while, with faults: at the end nothing has grown. `make campaign` does
// it for ten minutes (CREEL_SOAK_SECONDS).
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "tests/integration/support/pool.h"

namespace creel::testing {
namespace {

namespace fs = std::filesystem;
using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kWorkers = 6;
constexpr int kPool = 2;

int Setting(const char* name, int otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoi(value);
}

std::string Session(int i) { return "agent:main:dm:" + std::to_string(i); }

struct Size {
  int memory_kb = 0;
  int descriptors = 0;
  int threads = 0;  // Creel's own
  int pooled = 0;   // gRPC's
  size_t containers = 0;
  size_t mounts = 0;
  size_t loops = 0;
  // What the threads are called and the descriptors lead to, with how many there are of each.
  std::map<std::string, int> of_what;
  std::string text() const {
    return fmt::format(
        "memory {} KiB, descriptors {}, threads {} and {} of gRPC's pools, containers {}, mounts "
        "{}, "
        "loops {}\n{}",
        memory_kb, descriptors, threads, pooled, containers, mounts, loops,
        fmt::join(of_what, ", "));
  }
};

// Threads of gRPC's, by name. It keeps as many as it once needed at a time, which moves with the
// load, each up to a few for each processor.
const std::set<std::string> kGrpcPools{"default-executo", "event_engine",   "grpc_global_tim",
                                       "grpcpp_sync_ser", "nexting_thread", "resolver-execut",
                                       "timer_manager"};

int StatusValue(pid_t pid, const std::string& field) {
  std::istringstream lines(Slurp("/proc/" + std::to_string(pid) + "/status"));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(field + ":", 0) == 0) {
      return std::atoi(line.c_str() + field.size() + 1);
    }
  }
  return -1;
}

Size Measure(Supervisor& supervisor) {
  Size size;
  size.memory_kb = StatusValue(supervisor.pid(), "VmRSS");
  std::error_code ignored;
  for (auto at =
           fs::directory_iterator("/proc/" + std::to_string(supervisor.pid()) + "/task", ignored);
       at != fs::directory_iterator(); ++at) {
    std::string name = Slurp(at->path().string() + "/comm");
    name.resize(std::min(name.size(), name.find('\n')));
    ++(kGrpcPools.contains(name) ? size.pooled : size.threads);
    ++size.of_what["thread " + name];
  }
  for (auto at =
           fs::directory_iterator("/proc/" + std::to_string(supervisor.pid()) + "/fd", ignored);
       at != fs::directory_iterator(); ++at) {
    ++size.descriptors;
    std::string to = fs::read_symlink(at->path(), ignored).string();
    ++size.of_what[to.substr(0, to.find(":["))];
  }
  size.containers = ContainersOf(supervisor).size();
  size.mounts = MountsWith(supervisor.dir() + "/").size();
  std::istringstream loops(RunProgram({"losetup", "-a"}).out);
  for (std::string line; std::getline(loops, line);) {
    size.loops += line.find(supervisor.dir() + "/") != std::string::npos ? 1 : 0;
  }
  return size;
}

// What it is when nothing is open and all that was under way has ended.
Size AtRest(Supervisor& supervisor) {
  grpc::ClientContext context;
  operator_::v1::ListSessionsResponse sessions;
  REQUIRE(supervisor.operators().ListSessions(&context, {}, &sessions).ok());
  for (const auto& each : sessions.sessions()) {
    CHECK(supervisor.Creel({"close", each.session().session(), "--force"}).exit_code == 0);
  }
  REQUIRE(PoolFilled(supervisor, kPool));
  // Threads that wait for work end after ten seconds without any.
  Size size = Measure(supervisor);
  for (int same = 0; same < 12;) {
    std::this_thread::sleep_for(seconds(1));
    const Size now = Measure(supervisor);
    same = now.threads == size.threads && now.descriptors == size.descriptors &&
                   now.containers == size.containers && now.loops == size.loops
               ? same + 1
               : 0;
    size = now;
  }
  return size;
}

struct Done {
  std::atomic<int> calls{0};
  std::atomic<int> opens{0};
  std::atomic<int> faults{0};
  std::atomic<int> wrong{0};
};

void Fault(Supervisor& supervisor, const std::string& session, std::mt19937& random) {
  const std::string container = supervisor.Get(session).container_id();
  switch (random() % 5) {
    case 0:
      RunProgram({"docker", "kill", container});
      break;
    case 1:
      RunProgram({"docker", "rm", "-f", container});
      break;
    case 2:
      // All that runs in it.
      static_cast<void>(supervisor.Shell(session, "kill -9 -1"));
      break;
    case 3: {
      // A client that goes away in the middle of much output.
      grpc::ClientContext context;
      const auto stream = supervisor.gateway().Exec(&context);
      gateway::v1::ExecRequest request;
      request.mutable_start()->mutable_context()->set_session(session);
      request.mutable_start()->mutable_spec()->set_shell("cat /dev/zero");
      stream->Write(request);
      gateway::v1::ExecResponse response;
      for (int i = 0; i < 50 && stream->Read(&response); ++i) {
      }
      context.TryCancel();
      static_cast<void>(stream->Finish());
      break;
    }
    default:
      // Out of memory.
      static_cast<void>(supervisor.Shell(session, "head -c 200M /dev/zero | tail"));
  }
}

void Work(Supervisor& supervisor, int worker, Steady::time_point until, Done& done) {
  std::mt19937 random(static_cast<unsigned>(20261201 + worker));
  while (Steady::now() < until) {
    // No two workers share a session, so that each knows what its calls should give.
    const std::string session = Session(worker * 10 + static_cast<int>(random() % 3));
    const std::string text = std::to_string(random());
    if (!supervisor.Write(session, "f", text).ok()) {
      // One that a fault took may take a moment to be seen as lost.
      std::this_thread::sleep_for(milliseconds(50));
      continue;
    }
    for (int i = 0; i < 15; ++i) {
      const auto [status, read] = supervisor.Read(session, "f");
      done.wrong += status.ok() && read != text ? 1 : 0;
      const Outcome outcome =
          supervisor.Exec(session, {"sh", "-c", "cat f; echo more >&2; exit 3"});
      done.wrong += outcome.has_exit && (outcome.code() != 3 || outcome.out != text) ? 1 : 0;
      done.calls += 2;
    }
    switch (random() % 6) {
      case 0:
        Fault(supervisor, session, random);
        ++done.faults;
        break;
      case 1:
      case 2:
        static_cast<void>(supervisor.Close(session));
        ++done.opens;
        break;
      default:
        break;
    }
  }
}

void Disturb(Supervisor& supervisor, seconds time, Done& done) {
  const auto until = Steady::now() + time;
  std::vector<std::thread> workers;
  for (int i = 0; i < kWorkers; ++i) {
    workers.emplace_back([&, i] { Work(supervisor, i, until, done); });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
}

TEST_SUITE("Soak") {
  TEST_CASE("opens, closes, execs, file calls and faults: the end is as it was after the warm-up") {
    const int all = Setting("CREEL_SOAK_SECONDS", 120);
    const int warm_up = std::min(60, all / 2);
    Supervisor supervisor(
        {.extra_config = fmt::format("sessions:\n  opens_per_minute: 60000\n"
                                     "  max_per_sender: 1000\n  pause_after: 2s\n"
                                     "  warm_pool: {{size: {}, refill_rate: 6000}}\n",
                                     kPool),
         .sandbox_config = "  limits:\n    memory: 96MiB\n    tmp: 8MiB\n    run: 4MiB\n"
                           "    shm: 8MiB\n    workspace: 16MiB\n"});
    Done done;
    Disturb(supervisor, seconds(warm_up), done);
    const Size before = AtRest(supervisor);
    Disturb(supervisor, seconds(all - warm_up), done);
    const Size after = AtRest(supervisor);
    MESSAGE("calls=" << done.calls.load() << " closes=" << done.opens.load()
                     << " faults=" << done.faults.load());
    MESSAGE("before: " << before.text());
    MESSAGE("after:  " << after.text());
    CHECK(done.wrong == 0);
    CHECK(done.calls > 100);
    CHECK(done.faults > 0);
    CHECK(after.descriptors == before.descriptors);
    CHECK(after.threads == before.threads);
    // Hundreds of openings and faults lie between: one thread that each leaves would show.
    CHECK(after.pooled <= before.pooled + 8);
    CHECK(done.opens + done.faults > 40);
    CHECK(after.containers == before.containers);
    CHECK(after.mounts == before.mounts);
    CHECK(after.loops == before.loops);
    // The allocator keeps what it may need again; what leaks with every call shows all the same.
    CHECK(after.memory_kb <= before.memory_kb * 1.15 + 4096);
  }
}

}  // namespace
}  // namespace creel::testing
