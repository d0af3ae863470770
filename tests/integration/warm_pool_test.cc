// Containers that are started before their session is known: what they give away, to whom, and what
// is left of them.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/integration/support/pool.h"

namespace creel::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kSecret[] = "nobody-else-may-see-this-4711";

std::string Session(int i) { return "agent:main:dm:" + std::to_string(i); }

SupervisorOptions With(int size, const std::string& more_sandbox = "",
                       const std::string& more = "") {
  return {.extra_config =
              "sessions:\n  opens_per_minute: 6000\n  max_per_sender: 1000\n"
              "  warm_pool: {size: " +
              std::to_string(size) + ", refill_rate: 6000, memory_ceiling: 8GiB}\n" + more,
          .sandbox_config = "  limits:\n    workspace: 16MiB\n" + more_sandbox};
}

// The containers that are no session's.
std::vector<Living> Waiting(Supervisor& supervisor) {
  std::set<std::string> taken;
  grpc::ClientContext context;
  operator_::v1::ListSessionsResponse sessions;
  REQUIRE(supervisor.operators().ListSessions(&context, {}, &sessions).ok());
  for (const auto& each : sessions.sessions()) {
    taken.insert(each.session().container_id());
  }
  std::vector<Living> waiting;
  for (const std::string& id : ContainersOf(supervisor)) {
    if (!taken.contains(id)) {
      waiting.push_back(Look(id));
    }
  }
  return waiting;
}

// Lines of a container's mount table that lie at or below `target`.
std::vector<std::string> MountsAt(int pid, const std::string& target) {
  std::vector<std::string> found;
  std::istringstream lines(Slurp("/proc/" + std::to_string(pid) + "/mountinfo"));
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" " + target + " ") != std::string::npos ||
        line.find(" " + target + "/") != std::string::npos) {
      found.push_back(line);
    }
  }
  return found;
}

TEST_SUITE("WarmPool") {
  TEST_CASE("a container that waits has nobody's data, no key, no tool and no way out") {
    Supervisor supervisor(
        With(2, "", "egress:\n  hosts:\n    - {name: example.org, sessions: ['*']}\n"));
    REQUIRE(PoolFilled(supervisor, 2));
    // Somebody lives beside them.
    REQUIRE(supervisor.Write(Session(0), "secret", kSecret).ok());
    REQUIRE(PoolFilled(supervisor, 2));
    const std::string own = supervisor.Get(Session(0)).sandbox_id();
    const std::vector<Living> waiting = Waiting(supervisor);
    REQUIRE(waiting.size() == 2);
    for (const Living& each : waiting) {
      const std::string proc = "/proc/" + std::to_string(each.pid);
      CAPTURE(each.sandbox);
      // Its workspace is an empty folder of its own, which takes what is mounted on it and gives
      // nothing back.
      const std::vector<std::string> mounts = MountsAt(each.pid, "/workspace");
      REQUIRE(mounts.size() == 1);
      CHECK(mounts[0].find("/late /workspace ") != std::string::npos);
      CHECK(mounts[0].find("master:") != std::string::npos);
      CHECK(mounts[0].find("shared:") == std::string::npos);
      CHECK(fs::is_empty(proc + "/root/workspace"));
      // Nothing that it has is another's.
      CHECK(Slurp(proc + "/mountinfo").find(own) == std::string::npos);
      for (const Living& other : waiting) {
        CHECK((other.id == each.id ||
               Slurp(proc + "/mountinfo").find(other.sandbox) == std::string::npos));
      }
      CHECK(Slurp(proc + "/environ").find("creel") == std::string::npos);
      // It can call home and nowhere else.
      std::set<std::string> sockets;
      for (const auto& at : fs::directory_iterator(proc + "/root/run/creel")) {
        sockets.insert(at.path().filename());
      }
      CHECK(sockets == std::set<std::string>{"shim.sock"});
      // Nobody but the shim, its nursery and the reaper of its first command runs in it.
      std::multiset<std::string> running;
      std::istringstream rows(RunProgram({"docker", "top", each.id, "-eo", "pid,uid,comm"}).out);
      for (std::string line; std::getline(rows, line);) {
        std::istringstream words(line);
        std::string pid;
        std::string uid;
        std::string name;
        if (words >> pid >> uid >> name && pid != "PID") {
          running.insert(uid + " " + name);
        }
      }
      CHECK(running ==
            std::multiset<std::string>{"0 creel-nursery", "0 creel-reaper", "0 creel-shim"});
    }
    CHECK(fs::exists(supervisor.run_dir() + "/sandboxes/" + own + "/egress.sock"));
  }

  TEST_CASE("a session gets one that waited, as strong as one made for it, and nobody else's") {
    Supervisor supervisor(With(3));
    REQUIRE(PoolFilled(supervisor, 3));
    const std::vector<Living> waiting = Waiting(supervisor);
    std::set<std::string> ids;
    for (const Living& each : waiting) {
      ids.insert(each.id);
    }
    REQUIRE(supervisor.Write(Session(0), "secret", kSecret).ok());
    REQUIRE(supervisor.Exec(Session(1), {"true"}).code() == 0);
    const auto first = supervisor.Get(Session(0));
    const auto second = supervisor.Get(Session(1));
    CHECK(ids.contains(first.container_id()));
    CHECK(ids.contains(second.container_id()));
    CHECK(first.container_id() != second.container_id());
    // The engine's labels name it still, and the hash is that of what was made.
    const Living living = Look(first.container_id());
    CHECK(living.sandbox == first.sandbox_id());
    grpc::ClientContext context;
    operator_::v1::InspectSessionRequest request;
    request.set_session(Session(0));
    operator_::v1::InspectSessionResponse details;
    REQUIRE(supervisor.operators().InspectSession(&context, request, &details).ok());
    CHECK(details.spec_hash() == living.spec);
    CHECK(details.workspace_bound() == "sized");
    // Its tools are a user of their own, and own the workspace.
    const std::string uid = std::to_string(details.tool_uid());
    CHECK(supervisor.Shell(Session(0), "id -u; stat -c %u /workspace").out ==
          uid + "\n" + uid + "\n");
    const Outcome mounted =
        supervisor.Shell(Session(0), "grep ' /workspace ' /proc/self/mountinfo | tail -1");
    CHECK(mounted.out.find("nosuid") != std::string::npos);
    CHECK(mounted.out.find("nodev") != std::string::npos);
    CHECK(mounted.out.find("ext4") != std::string::npos);
    // Nothing more gets in from the host, nor out.
    CHECK(mounted.out.find("master:") == std::string::npos);
    CHECK(mounted.out.find("shared:") == std::string::npos);
    for (const std::string& line : MountsAt(living.pid, "/workspace")) {
      CHECK(line.find("master:") == std::string::npos);
    }
    CHECK_FALSE(fs::exists(supervisor.run_dir() + "/mounts/" + first.sandbox_id()));
    // It is full when it is full.
    CHECK(supervisor.Shell(Session(0), "head -c 64M /dev/zero > big").code() != 0);
    CHECK(supervisor.Shell(Session(0), "rm big").code() == 0);
    // One session cannot see another's.
    const Outcome other = supervisor.Shell(
        Session(1), "cat /workspace/secret; cat /proc/self/mountinfo; ls -la /workspace");
    CHECK(other.out.find(kSecret) == std::string::npos);
    CHECK(other.out.find(first.sandbox_id()) == std::string::npos);
    CHECK(supervisor.Read(Session(0), "secret").second == kSecret);
  }

  TEST_CASE(
      "a folder that the gateway names is mounted late, with its owner and what is protected") {
    std::string given = "/var/tmp/creel-warm-XXXXXX";
    REQUIRE(mkdtemp(given.data()) != nullptr);
    fs::create_directories(given + "/a/.git/hooks");
    std::ofstream(given + "/a/kept") << "from the host";
    std::ofstream(given + "/a/.git/config") << "[core]\n";
    for (const char* each : {"", "/a", "/a/kept", "/a/.git", "/a/.git/hooks", "/a/.git/config"}) {
      REQUIRE(chown((given + each).c_str(), 12345, 12345) == 0);
    }
    {
      Supervisor supervisor(
          With(2, "  workspace_access: rw\n  workspace_roots: [" + given + "]\n"));
      REQUIRE(PoolFilled(supervisor, 2));
      std::set<std::string> ids;
      for (const Living& each : Waiting(supervisor)) {
        ids.insert(each.id);
      }
      gateway::v1::OpenSessionResponse opened;
      REQUIRE(supervisor
                  .Open(Session(0), &opened,
                        [&](auto& request) { request.set_workspace(given + "/a"); })
                  .ok());
      CHECK(ids.contains(supervisor.Get(Session(0)).container_id()));
      const Outcome wrote =
          supervisor.Shell(Session(0),
                           "cat kept; echo x > made; mkdir sub; echo evil > .git/hooks/pre-commit; "
                           "echo evil >> .git/config; mv .git moved; ls -a");
      CAPTURE(wrote.err);
      CHECK(wrote.out.find("from the host") == 0);
      CHECK(fs::exists(given + "/a/made"));
      CHECK_FALSE(fs::exists(given + "/a/.git/hooks/pre-commit"));
      CHECK(Slurp(given + "/a/.git/config") == "[core]\n");
      CHECK(fs::exists(given + "/a/.git"));
      struct stat about {};
      REQUIRE(stat((given + "/a/made").c_str(), &about) == 0);
      CHECK(about.st_uid == 12345);
      // Read-only is read-only.
      REQUIRE(supervisor
                  .Open(Session(1), &opened,
                        [&](auto& request) {
                          request.set_workspace(given + "/a");
                          request.set_workspace_access(gateway::v1::WORKSPACE_ACCESS_READ_ONLY);
                        })
                  .ok());
      CHECK(ids.contains(supervisor.Get(Session(1)).container_id()));
      CHECK(supervisor.Shell(Session(1), "cat kept").out == "from the host");
      CHECK(supervisor.Shell(Session(1), "echo y > made2").code() != 0);
      // What is not allowed is not allowed here either, and nothing is left of the attempt.
      REQUIRE(PoolFilled(supervisor, 2));
      CHECK(
          supervisor.Open(Session(2), &opened, [](auto& request) { request.set_workspace("/etc"); })
              .error_code() == grpc::StatusCode::INVALID_ARGUMENT);
      REQUIRE(PoolFilled(supervisor, 2));
      CHECK(ContainersOf(supervisor).size() == 4);
    }
    fs::remove_all(given);
  }

  TEST_CASE("one that was used is removed, and never waits again") {
    Supervisor supervisor(With(1));
    std::set<std::string> used;
    for (int i = 0; i < 3; ++i) {
      REQUIRE(PoolFilled(supervisor, 1));
      REQUIRE(supervisor.Write(Session(0), "secret", kSecret).ok());
      const std::string id = supervisor.Get(Session(0)).container_id();
      CHECK(used.insert(id).second);
      CHECK(supervisor.Shell(Session(0), "ls /workspace").out == "secret\n");
      REQUIRE(supervisor.Close(Session(0)).ok());
      for (const std::string& living : ContainersOf(supervisor)) {
        CHECK(living != id);
      }
    }
  }

  TEST_CASE("with none that waits, and with one that just ended, sessions open all the same") {
    Supervisor supervisor(With(1));
    REQUIRE(PoolFilled(supervisor, 1));
    for (int i = 0; i < 3; ++i) {
      CHECK(supervisor.Exec(Session(i), {"true"}).code() == 0);
    }
    REQUIRE(PoolFilled(supervisor, 1));
    const std::vector<Living> waiting = Waiting(supervisor);
    REQUIRE(waiting.size() == 1);
    RunProgram({"docker", "rm", "-f", waiting[0].id});
    CHECK(supervisor.Exec(Session(3), {"true"}).code() == 0);
    // Frozen by somebody, it does not answer; the session gets another.
    REQUIRE(PoolFilled(supervisor, 1));
    const std::vector<Living> again = Waiting(supervisor);
    REQUIRE(again.size() == 1);
    kill(again[0].pid, SIGKILL);
    CHECK(supervisor.Exec(Session(4), {"true"}).code() == 0);
    CHECK(PoolFilled(supervisor, 1));
  }

  TEST_CASE("killed at random moments with openings under way: nothing is left over") {
    Supervisor supervisor(With(3));
    std::mt19937 random(20261201);
    for (int kill = 0; kill < 6; ++kill) {
      CAPTURE(kill);
      std::atomic<bool> stop = false;
      std::vector<std::thread> workers;
      for (int w = 0; w < 3; ++w) {
        workers.emplace_back([&, w] {
          for (int i = 0; !stop; ++i) {
            const std::string session = Session(w * 100 + i % 3);
            static_cast<void>(supervisor.Exec(session, {"true"}, {}, "", std::chrono::seconds(20)));
            static_cast<void>(supervisor.Close(session));
          }
        });
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100 + random() % 2500));
      supervisor.Stop(SIGKILL);
      stop = true;
      for (std::thread& worker : workers) {
        worker.join();
      }
      supervisor.StartAgain();
      CHECK(supervisor.Exec(Session(7), {"true"}).code() == 0);
    }
    CHECK(PoolFilled(supervisor, 3));
    grpc::ClientContext context;
    operator_::v1::ListSessionsResponse sessions;
    REQUIRE(supervisor.operators().ListSessions(&context, {}, &sessions).ok());
    for (const auto& each : sessions.sessions()) {
      REQUIRE(supervisor.Close(each.session().session()).ok());
    }
    CHECK(
        Eventually([&] { return ContainersOf(supervisor).size() == 3; }, std::chrono::seconds(60)));
    // An orderly end takes those that wait with it.
    supervisor.Stop(SIGTERM);
    std::string left;
    const bool clean =
        Eventually([&] { return (left = Left(supervisor)).empty(); }, std::chrono::seconds(10));
    CAPTURE(left);
    CHECK(clean);
    supervisor.StartAgain();
  }
}

}  // namespace
}  // namespace creel::testing
