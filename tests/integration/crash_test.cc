// The supervisor killed at any moment: nothing is left over, nothing is lost. `make campaign` kills
// it two hundred times (CREEL_CRASH_KILLS).
#include <doctest/doctest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/audit/line.h"
#include "tests/integration/support/incidents.h"

namespace creel::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kSurvivor[] = "agent:main:dm:survivor";

int Setting(const char* name, int otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoi(value);
}

std::set<std::string> NamesIn(const std::string& path) {
  std::set<std::string> names;
  std::error_code ignored;
  for (auto at = fs::directory_iterator(path, ignored); at != fs::directory_iterator(); ++at) {
    names.insert(at->path().filename());
  }
  return names;
}

std::string LoopDevices(const Supervisor& supervisor, const std::set<std::string>& known) {
  std::string strange;
  std::istringstream loops(RunProgram({"losetup", "-a"}).out);
  for (std::string line; std::getline(loops, line);) {
    const bool ours = line.find(supervisor.state_dir() + "/sandboxes/") != std::string::npos;
    const bool used = std::any_of(known.begin(), known.end(), [&](const std::string& id) {
      return line.find(id) != std::string::npos;
    });
    strange += ours && !used ? line + "\n" : "";
  }
  return strange;
}

// What is on the host and belongs to no session.
std::string Orphans(Supervisor& supervisor) {
  grpc::ClientContext context;
  operator_::v1::ListSessionsResponse sessions;
  if (!supervisor.operators().ListSessions(&context, {}, &sessions).ok()) {
    return "the sessions are not listed";
  }
  std::set<std::string> ids;
  std::set<std::string> containers;
  for (const auto& each : sessions.sessions()) {
    ids.insert(each.session().sandbox_id());
    containers.insert(each.session().container_id());
  }
  std::string orphans;
  for (const std::string& id : ContainersOf(supervisor)) {
    orphans += containers.contains(id) ? "" : "container " + id + "\n";
  }
  for (const std::string& folder :
       {supervisor.run_dir() + "/sandboxes", supervisor.run_dir() + "/mounts",
        supervisor.state_dir() + "/sandboxes"}) {
    for (const std::string& name : NamesIn(folder)) {
      orphans += ids.contains(name) ? "" : "folder " + folder + "/" + name + "\n";
    }
  }
  for (const std::string& line : MountsWith(supervisor.dir() + "/")) {
    const bool used = std::any_of(ids.begin(), ids.end(), [&](const std::string& id) {
      return line.find(id) != std::string::npos;
    });
    orphans += used ? "" : "mount " + line + "\n";
  }
  for (const std::string& path : ListeningSockets(supervisor.run_dir() + "/sandboxes")) {
    const bool used = std::any_of(ids.begin(), ids.end(), [&](const std::string& id) {
      return path.find(id) != std::string::npos;
    });
    orphans += used ? "" : "socket " + path + "\n";
  }
  return orphans + LoopDevices(supervisor, ids);
}

// Effects in the record that no decision stands before.
std::string Undecided(const std::vector<std::string>& lines) {
  std::set<std::string> decided;
  std::set<std::string> opening;
  std::string undecided;
  for (const std::string& line : lines) {
    const std::string event = FieldOf(line, "event").value_or("");
    const std::string call = FieldOf(line, "call").value_or("");
    const std::string sandbox = FieldOf(line, "sandbox").value_or("");
    if (event == "call.allowed") {
      decided.insert(call);
    } else if (event == "call.ended") {
      undecided += decided.contains(call) ? "" : line + "\n";
    } else if (event == "session.opening") {
      opening.insert(sandbox);
    } else if (event == "session.opened") {
      undecided += opening.contains(sandbox) ? "" : line + "\n";
    }
  }
  return undecided;
}

// Opens, runs and closes until it is told to stop; what fails meanwhile fails.
void Disturb(Supervisor& supervisor, unsigned seed, const std::atomic<bool>& stop) {
  std::mt19937 random(seed);
  while (!stop) {
    const std::string session = "agent:main:dm:" + std::to_string(random() % 6);
    switch (random() % 4) {
      case 0:
        static_cast<void>(supervisor.Close(session));
        break;
      case 1:
        static_cast<void>(supervisor.Write(session, "f", std::string(random() % 100'000, 'x')));
        break;
      default:
        static_cast<void>(supervisor.Exec(session, {"sh", "-c", "echo x; sleep 0.05"}, {}, "",
                                          std::chrono::seconds(20)));
    }
  }
}

void StartTicking(Supervisor& supervisor) {
  grpc::ClientContext context;
  const auto stream = supervisor.gateway().Exec(&context);
  gateway::v1::ExecRequest request;
  request.mutable_start()->mutable_context()->set_session(kSurvivor);
  request.mutable_start()->set_process_id("ticking");
  request.mutable_start()->set_detach(true);
  request.mutable_start()->mutable_spec()->set_shell(
      "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done");
  stream->Write(request);
  gateway::v1::ExecResponse response;
  while (stream->Read(&response) && !response.event().has_output()) {
  }
  context.TryCancel();
  static_cast<void>(stream->Finish());
}

// All that the command has said up to now, each line once and in order; else what is wrong.
std::string WrongTicks(Supervisor& supervisor, size_t& seen) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto stream = supervisor.gateway().AttachProcess(&context);
  gateway::v1::AttachProcessRequest request;
  request.mutable_attach()->mutable_context()->set_session(kSurvivor);
  request.mutable_attach()->set_process_id("ticking");
  stream->Write(request);
  std::string all;
  gateway::v1::AttachProcessResponse response;
  size_t lines = 0;
  while (lines <= seen && stream->Read(&response)) {
    all += response.event().output().data();
    lines = static_cast<size_t>(std::count(all.begin(), all.end(), '\n'));
  }
  context.TryCancel();
  const grpc::Status status = stream->Finish();
  if (lines <= seen) {
    return "it ended: " + status.error_message() + "; last " + response.ShortDebugString();
  }
  seen = lines;
  std::istringstream text(all);
  size_t i = 0;
  for (std::string line; std::getline(text, line) && !text.eof();) {
    ++i;
    if (line != "tick " + std::to_string(i)) {
      return "line " + std::to_string(i) + " is '" + line + "'";
    }
  }
  return "";
}

TEST_SUITE("Crash") {
  TEST_CASE(
      "killed at random moments under load: the record holds, nothing is orphaned, commands go "
      "on") {
    const int kills = Setting("CREEL_CRASH_KILLS", 30);
    const auto seed = static_cast<unsigned>(Setting("CREEL_CRASH_SEED", 20261127));
    std::mt19937 random(seed);
    Supervisor supervisor({.sandbox_config = "  limits:\n    workspace: 16MiB\n"});
    StartTicking(supervisor);
    size_t ticks = 0;
    for (int kill = 0; kill < kills; ++kill) {
      CAPTURE(kill);
      std::atomic<bool> stop = false;
      std::vector<std::thread> workers;
      for (unsigned w = 0; w < 3; ++w) {
        workers.emplace_back(
            [&, w] { Disturb(supervisor, seed + w + 100u * static_cast<unsigned>(kill), stop); });
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20 + random() % 1500));
      supervisor.Stop(SIGKILL);
      stop = true;
      for (std::thread& worker : workers) {
        worker.join();
      }
      supervisor.StartAgain();
      Operators operators(supervisor);
      const auto verified = operators.Verify();
      CAPTURE(verified.problem());
      REQUIRE(verified.sound());
      std::string orphans;
      const bool clean = Eventually([&] {
        orphans = Orphans(supervisor);
        return orphans.empty();
      });
      CAPTURE(orphans);
      REQUIRE(clean);
      const std::string undecided = Undecided(operators.Lines());
      CAPTURE(undecided);
      REQUIRE(undecided.empty());
      const std::string wrong = WrongTicks(supervisor, ticks);
      CAPTURE(wrong);
      const std::string log = wrong.empty() ? "" : supervisor.Log();
      CAPTURE(log);
      REQUIRE(wrong.empty());
    }
    MESSAGE("kills=" << kills << " ticks=" << ticks);
  }
}

}  // namespace
}  // namespace creel::testing
