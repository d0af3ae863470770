// Incidents against the real engine: stop, keep the evidence, end.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/statvfs.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <set>
#include <sstream>
#include <string>

#include "tests/integration/support/incidents.h"

namespace creel::testing {
namespace {

namespace fs = std::filesystem;
using Steady = std::chrono::steady_clock;

constexpr char kSession[] = "agent:main:whatsapp:group:120363";

// What a session leaves on the host.
struct Traces {
  size_t containers = 0;
  size_t mounts = 0;
  size_t folders = 0;
  size_t loops = 0;
  size_t sockets = 0;
  bool operator==(const Traces&) const = default;
};

size_t EntriesOf(const std::string& path) {
  std::error_code ignored;
  size_t count = 0;
  for (auto at = fs::directory_iterator(path, ignored); at != fs::directory_iterator(); ++at) {
    ++count;
  }
  return count;
}

Traces TracesOf(const Supervisor& supervisor) {
  Traces traces{.containers = ContainersOf(supervisor).size(),
                .mounts = MountsWith(supervisor.dir() + "/").size(),
                .folders = EntriesOf(supervisor.run_dir() + "/sandboxes") +
                           EntriesOf(supervisor.run_dir() + "/mounts") +
                           EntriesOf(supervisor.state_dir() + "/sandboxes"),
                .loops = 0,
                .sockets = ListeningSockets(supervisor.dir()).size()};
  std::istringstream loops(RunProgram({"losetup", "-a"}).out);
  for (std::string line; std::getline(loops, line);) {
    traces.loops += line.find(supervisor.dir() + "/") != std::string::npos ? 1 : 0;
  }
  return traces;
}

// The names in a bundle, and the content of one member.
std::string Names(const std::string& bundle) {
  return RunProgram({"tar", "--zstd", "-tf", bundle}).out;
}
std::string Member(const std::string& bundle, const std::string& name) {
  return RunProgram({"tar", "--zstd", "-xOf", bundle, name}).out;
}

std::string KeyFile(const Supervisor& supervisor) {
  std::string path = supervisor.dir() + "/key.pub";
  std::ofstream(path) << supervisor.Creel({"audit", "key"}).out;
  return path;
}

TEST_SUITE("Incident") {
  TEST_CASE("one command stops a session, and thawing it gives everything back") {
    Supervisor supervisor;
    REQUIRE(supervisor.Write(kSession, "kept", "yes").ok());
    REQUIRE(supervisor.Exec("agent:main:dm:other", {"true"}).code() == 0);
    auto running = std::async(std::launch::async, [&] {
      return supervisor.Exec(kSession, {"sh", "-c", "while :; do :; done"});
    });
    REQUIRE(Eventually([&] { return supervisor.Get(kSession).processes() == 1; }));
    const Finished opened = supervisor.Creel(
        {"incident", "open", "--session", kSession, "--reason", "it acts strangely"});
    CAPTURE(opened.err);
    CHECK(opened.exit_code == 0);
    CHECK(opened.out.find("incident 1") != std::string::npos);
    // The call that ran was told at once.
    REQUIRE(running.wait_for(std::chrono::seconds(5)) == std::future_status::ready);
    CHECK(running.get().code() == -1);
    const Outcome refused = supervisor.Exec(kSession, {"true"});
    CHECK(refused.status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(refused.status.error_message().find("incident 1") != std::string::npos);
    CHECK(refused.status.error_message().find("it acts strangely") != std::string::npos);
    CHECK(supervisor.Exec("agent:main:dm:other", {"true"}).code() == 0);
    // The evidence follows by itself.
    Operators operators(supervisor);
    REQUIRE(Eventually([&] { return operators.Get("1").second.bundles_size() == 1; },
                       std::chrono::seconds(60)));
    CHECK(supervisor.Creel({"incident", "thaw", "1"}).exit_code == 0);
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
    CHECK(operators.Get("1").second.state() == "thawed");
    CHECK_FALSE(operators.Thaw("1").ok());
    CHECK(operators.Verify().sound());
  }

  TEST_CASE("a bundle holds what the session did, and any flipped byte fails") {
    Supervisor supervisor(
        {.extra_config = "incident:\n  gateway_files: [/tmp/creel-test-gateway]\n"});
    std::ofstream("/tmp/creel-test-gateway") << "what the gateway logged\n";
    REQUIRE(supervisor
                .Shell(kSession,
                       "mkdir notes; printf 'the plan' > notes/plan.txt; echo in-tmp > /tmp/t; "
                       "echo in-shm > /dev/shm/s")
                .code() == 0);
    REQUIRE(supervisor.Shell(kSession, "echo what it said; sleep 1000 >/dev/null 2>&1 &").code() ==
            0);
    Operators operators(supervisor);
    const auto [status, opened] = operators.Open(About(kSession));
    REQUIRE(status.ok());
    REQUIRE(opened.incident().sandboxes_size() == 1);
    const auto [captured, bundle] = operators.Capture(opened.incident().id());
    CAPTURE(captured.error_message());
    REQUIRE(captured.ok());
    const std::string base = "sandboxes/" + opened.incident().sandboxes(0).sandbox_id() + "/";
    const std::string names = Names(bundle.path());
    CAPTURE(names);
    for (const char* wanted : {"inspect.json", "processes.json", "changes.json", "commands.json",
                               "workspace/notes/plan.txt", "tmp/t", "shm/s"}) {
      CAPTURE(wanted);
      CHECK(names.find(base + wanted + "\n") != std::string::npos);
    }
    CHECK(Member(bundle.path(), base + "workspace/notes/plan.txt") == "the plan");
    CHECK(Member(bundle.path(), base + "tmp/t") == "in-tmp\n");
    CHECK(Member(bundle.path(), base + "processes.json").find("sleep 1000") != std::string::npos);
    CHECK(Member(bundle.path(), "record.jsonl").find("what it said") != std::string::npos);
    CHECK(Member(bundle.path(), "gateway/tmp/creel-test-gateway") == "what the gateway logged\n");
    fs::remove("/tmp/creel-test-gateway");
    const std::string key = KeyFile(supervisor);
    const Finished sound = supervisor.Creel({"incident", "verify", bundle.path(), "--key", key});
    CAPTURE(sound.out);
    CHECK(sound.exit_code == 0);
    std::string bytes;
    {
      std::ifstream file(bundle.path(), std::ios::binary);
      std::ostringstream text;
      text << file.rdbuf();
      bytes = text.str();
    }
    const std::string flipped = supervisor.dir() + "/flipped.tar.zst";
    for (size_t i = 0; i < 20; ++i) {
      std::string bad = bytes;
      const size_t at = i * (bytes.size() - 1) / 19;
      bad[at] = static_cast<char>(bad[at] ^ 1);
      std::ofstream(flipped, std::ios::binary) << bad;
      CAPTURE(at);
      CHECK(RunProgram({CREEL_TEST_VERIFY, "bundle", flipped, "--key", key}).exit_code == 1);
    }
  }

  TEST_CASE("a workspace of 200 MB is captured in five seconds") {
    Supervisor supervisor({.sandbox_config = "  limits:\n    workspace: 1GiB\n"});
    REQUIRE(supervisor
                .Shell(kSession, "for i in 1 2 3 4; do head -c 50000000 /dev/urandom > f$i; done",
                       std::chrono::seconds(120))
                .code() == 0);
    Operators operators(supervisor);
    const auto [status, opened] = operators.Open(About(kSession));
    REQUIRE(status.ok());
    double best = 1e9;
    // A machine that does something else beside is no judge: the best of three counts.
    for (int i = 0; i < 3 && best > 5; ++i) {
      const auto [captured, bundle] = operators.Capture(opened.incident().id());
      REQUIRE(captured.ok());
      CHECK(bundle.left_out_size() <= 2);  // sockets in /run
      CHECK(bundle.bytes() > 190'000'000);
      best = std::min(best, ToSeconds(bundle.took()).count());
    }
    MESSAGE("capture_200mb_s=" << best);
    CHECK(best <= 5.0 * Slack());
  }

  TEST_CASE("a hostile workspace leaks no file of the host, holds nothing up, and fills nothing") {
    Supervisor supervisor({.extra_config = "incident:\n  max_files: 1000\n",
                           .sandbox_config = "  limits:\n    workspace: 1GiB\n"});
    const std::string lease = supervisor.PutProgram(kSession, "hold_lease");
    REQUIRE(supervisor
                .Shell(kSession,
                       "ln -s /etc/shadow shadow; ln -s /proc/1/root root; mkfifo fifo;"
                       "ln -s / slash; echo leased > leased;"
                       "printf x > \"$(printf 'new\\nline')\"; printf x > \"$(printf '\\033[2J')\";"
                       "truncate -s 1T sparse; echo made",
                       std::chrono::seconds(120))
                .out == "made\n");
    const std::string fill = supervisor.PutProgram(kSession, "many_links");
    REQUIRE(supervisor.Exec(kSession, {fill, "many", "1000000"}, {}, "", std::chrono::seconds(280))
                .out == "1000000 names\n");
    // No tool can make one; whoever could would have it lie in wait.
    const std::string init = RunProgram({"docker", "inspect", "-f", "{{.State.Pid}}",
                                         supervisor.Get(kSession).container_id()})
                                 .out;
    REQUIRE(
        RunProgram({"mknod", "/proc/" + init.substr(0, init.find('\n')) + "/root/workspace/endless",
                    "c", "1", "9"})
            .exit_code == 0);
    struct statvfs disk_before {};
    REQUIRE(::statvfs(supervisor.state_dir().c_str(), &disk_before) == 0);
    auto holder = std::async(std::launch::async, [&] {
      return supervisor.Exec(kSession, {lease, "leased"});
    });
    REQUIRE(Eventually([&] { return supervisor.Get(kSession).processes() == 1; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    Operators operators(supervisor);
    const auto [status, opened] = operators.Open(About(kSession));
    REQUIRE(status.ok());
    const auto began = Steady::now();
    const auto [captured, bundle] = operators.Capture(opened.incident().id());
    REQUIRE(captured.ok());
    // A million names are a second's work; a machine that is busy otherwise is given time.
    CHECK(Steady::now() - began < std::chrono::seconds(60));
    const std::string names =
        RunProgram({"sh", "-c",
                    "tar --zstd -tvf " + bundle.path() +
                        " | grep -E ' sandboxes/[^/]*/workspace/[^/]*$| -> '"})
            .out;
    CAPTURE(names);
    // Links are links; neither fifo nor device is opened, and what they are is told.
    CHECK(names.find("workspace/shadow -> /etc/shadow") != std::string::npos);
    CHECK(names.find("workspace/slash -> /") != std::string::npos);
    CHECK(bundle.bytes() < 16u << 20);
    std::string left_out;
    for (const std::string& what : bundle.left_out()) {
      left_out += what + "\n";
    }
    CAPTURE(left_out);
    CHECK(left_out.find("more than 1000 entries") != std::string::npos);
    std::string shadow;
    {
      std::ifstream file("/etc/shadow");
      std::getline(file, shadow);
    }
    const std::string everything = RunProgram({"sh", "-c",
                                               "tar --zstd -xOf " + bundle.path() +
                                                   " --wildcards 'sandboxes/*' "
                                                   "--exclude '*/sparse' | head -c 50000000"})
                                       .out;
    REQUIRE_FALSE(shadow.empty());
    CHECK(everything.find(shadow) == std::string::npos);
    CHECK(RunProgram({CREEL_TEST_VERIFY, "bundle", bundle.path(), "--key", KeyFile(supervisor)})
              .exit_code == 0);
    CHECK(operators.Teardown(opened.incident().id()).ok());
    holder.wait();
  }

  TEST_CASE("teardown leaves nothing, and is refused without evidence") {
    Supervisor supervisor;
    const Traces before = TracesOf(supervisor);
    for (int i = 0; i < 5; ++i) {
      REQUIRE(supervisor
                  .Shell("agent:main:dm:" + std::to_string(i),
                         "echo x > f; sleep 1000 >/dev/null 2>&1 &")
                  .code() == 0);
    }
    CHECK(TracesOf(supervisor).containers == 5);
    Operators operators(supervisor);
    const auto [status, opened] = operators.Open(About(""));
    REQUIRE(status.ok());
    CHECK(opened.incident().sandboxes_size() == 5);
    const std::string id = opened.incident().id();
    CHECK(operators.Teardown(id).error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(ContainersOf(supervisor).size() == 5);
    REQUIRE(operators.Capture(id).first.ok());
    const grpc::Status down = operators.Teardown(id);
    CAPTURE(down.error_message());
    CHECK(down.ok());
    // The host is given a moment: the kernel lets go of loop devices when it comes to it.
    const bool nothing = Eventually([&] { return TracesOf(supervisor) == before; });
    const Traces after = TracesOf(supervisor);
    CAPTURE(after.containers);
    CAPTURE(after.mounts);
    CAPTURE(after.folders);
    CAPTURE(after.loops);
    CAPTURE(after.sockets);
    CHECK(nothing);
    // The bundle stays, and new sessions may come.
    CHECK(fs::exists(operators.Get(id).second.bundles(0).path()));
    CHECK(supervisor.Exec("agent:main:dm:1", {"true"}).code() == 0);
    CHECK(operators.Verify().sound());
  }

  TEST_CASE("panic does it all in one go, and stops the gateway") {
    Supervisor supervisor(
        {.extra_config = "incident:\n  stop_gateway: [/bin/sh, -c, 'echo the gateway ends']\n"});
    REQUIRE(supervisor.Shell(kSession, "sleep 1000 >/dev/null 2>&1 &").code() == 0);
    REQUIRE(supervisor.Shell("agent:main:dm:2", "echo x > f").code() == 0);
    const Finished panic = supervisor.Creel({"panic", "--stop-gateway"});
    CAPTURE(panic.out);
    CAPTURE(panic.err);
    CHECK(panic.exit_code == 0);
    CHECK(panic.out.find("the gateway ends") != std::string::npos);
    CHECK(ContainersOf(supervisor).empty());
    Operators operators(supervisor);
    const operator_::v1::Incident incident = operators.Get("1").second;
    CHECK(incident.state() == "torn_down");
    REQUIRE(incident.bundles_size() == 1);
    CHECK(Names(incident.bundles(0).path()).find("/workspace/f\n") != std::string::npos);
    const Finished report = supervisor.Creel({"incident", "report", "1"});
    CHECK(report.exit_code == 0);
    CHECK(report.out.find("Timeline") != std::string::npos);
    CHECK(supervisor.Creel({"incident", "report", "1", "--html"}).out.starts_with("<!doctype"));
  }

  TEST_CASE("panic takes down what waits for sessions too") {
    Supervisor supervisor({.extra_config = "sessions:\n  warm_pool: {size: 3}\n"});
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    REQUIRE(Eventually([&] { return ContainersOf(supervisor).size() == 4; }));
    const Finished panic = supervisor.Creel({"panic"});
    CAPTURE(panic.err);
    CHECK(panic.exit_code == 0);
    CHECK(ContainersOf(supervisor).empty());
    CHECK(MountsWith(supervisor.dir() + "/").empty());
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
  }

  TEST_CASE("a sender is found by whatever id, and a session under whatever name") {
    Supervisor supervisor({.extra_config =
                               "levels:\n  friend:\n    members: ['whatsapp:+15555550101', "
                               "'irc:ev\\il']\n"});
    const auto as = [](const std::string& sender) {
      return [sender](auto& start) { start.mutable_context()->set_sender(sender); };
    };
    // A name that turns the direction of writing, opened by somebody else.
    const std::string session =
        "agent:main:g:\xe2\x80\xae"
        "1";
    REQUIRE(supervisor.Exec(session, {"true"}, as("whatsapp:+15555550101")).code() == 0);
    REQUIRE(supervisor.Exec(session, {"echo", "of the other"}, as("irc:ev\\il")).code() == 0);
    operator_::v1::OpenIncidentRequest request;
    request.set_sender("irc:ev\\il");
    request.set_reason("this sender asks for too much");
    request.set_without_capture(true);
    Operators operators(supervisor);
    const auto [status, opened] = operators.Open(request);
    REQUIRE(status.ok());
    CHECK(opened.incident().sandboxes_size() == 1);
    REQUIRE(operators.Thaw("1").ok());
    REQUIRE(operators.Open(About(session)).first.ok());
    const std::string report = supervisor.Creel({"incident", "report", "2"}).out;
    CAPTURE(report);
    CHECK(report.find("echo of the other") != std::string::npos);
  }

  TEST_CASE("while an incident is being opened nothing else is done with it") {
    Supervisor supervisor({.extra_config = "incident:\n  stop_gateway: [\"/bin/sleep\", \"3\"]\n"});
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    Operators operators(supervisor);
    operator_::v1::OpenIncidentRequest request = About(kSession);
    request.set_stop_gateway(true);
    auto opening = std::async(std::launch::async, [&] { return operators.Open(request); });
    // It stands still long before the gateway has stopped, and can then be let go on.
    Operators other(supervisor);
    REQUIRE(Eventually([&] { return other.Thaw("1").ok(); }));
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
    REQUIRE(opening.get().first.ok());
    const operator_::v1::Incident after = operators.Get("1").second;
    CHECK(after.state() == "thawed");
    CHECK_FALSE(after.gateway_stop().empty());
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
  }

  TEST_CASE("a sender's incident holds every sandbox that the sender reached, and only those") {
    Supervisor supervisor({.extra_config =
                               "levels:\n  friend:\n    members: ['whatsapp:+15555550101', "
                               "'whatsapp:+15555550102']\n"});
    const auto as = [](const std::string& sender) {
      return [sender](auto& start) { start.mutable_context()->set_sender(sender); };
    };
    REQUIRE(supervisor.Exec("agent:main:g:1", {"true"}, as("whatsapp:+15555550101")).code() == 0);
    REQUIRE(supervisor.Exec("agent:main:g:2", {"true"}, as("whatsapp:+15555550102")).code() == 0);
    REQUIRE(supervisor.Exec("agent:main:g:3", {"true"}, as("whatsapp:+15555550102")).code() == 0);
    // The first sender did not open this one, but reached it.
    REQUIRE(supervisor.Exec("agent:main:g:3", {"true"}, as("whatsapp:+15555550101")).code() == 0);
    operator_::v1::OpenIncidentRequest request;
    request.set_sender("whatsapp:+15555550101");
    request.set_reason("this sender asks for too much");
    request.set_without_capture(true);
    Operators operators(supervisor);
    const auto [status, opened] = operators.Open(request);
    REQUIRE(status.ok());
    std::set<std::string> frozen;
    for (const auto& sandbox : opened.incident().sandboxes()) {
      frozen.insert(sandbox.session());
    }
    CHECK(frozen == std::set<std::string>{"agent:main:g:1", "agent:main:g:3"});
    CHECK(supervisor.Exec("agent:main:g:2", {"true"}, as("whatsapp:+15555550102")).code() == 0);
    CHECK_FALSE(
        supervisor.Exec("agent:main:g:2", {"true"}, as("whatsapp:+15555550101")).status.ok());
    CHECK_FALSE(
        supervisor.Exec("agent:main:g:9", {"true"}, as("whatsapp:+15555550101")).status.ok());
    // Nor by another spelling of the same number.
    const Outcome spelled =
        supervisor.Exec("agent:main:g:9", {"true"}, as("whatsapp:15555550101@s.whatsapp.net"));
    CHECK(spelled.status.error_message().find("incident") != std::string::npos);
    CHECK(operators.Thaw(opened.incident().id()).ok());
    CHECK(supervisor.Exec("agent:main:g:3", {"true"}, as("whatsapp:+15555550101")).code() == 0);
  }

  TEST_CASE("an incident outlives the supervisor, killed in the middle of it") {
    Supervisor supervisor;
    REQUIRE(supervisor.Write(kSession, "kept", "yes").ok());
    Operators operators(supervisor);
    REQUIRE(operators.Open(About("")).first.ok());
    supervisor.Restart(SIGKILL);
    Operators again(supervisor);
    CHECK(again.Get("1").second.state() == "open");
    CHECK_FALSE(supervisor.Exec(kSession, {"true"}).status.ok());
    CHECK_FALSE(supervisor.Exec("agent:main:dm:new", {"true"}).status.ok());
    CHECK(supervisor.Get(kSession).state() == gateway::v1::SESSION_STATE_FROZEN);
    CHECK(again.Thaw("1").ok());
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
  }

  TEST_CASE(
      "the store deleted in the middle of an incident: sandboxes and evidence are still there") {
    for (const bool damaged : {false, true}) {
      CAPTURE(damaged);
      Supervisor supervisor;
      const Traces before = TracesOf(supervisor);
      REQUIRE(supervisor.Write(kSession, "kept", "the evidence").ok());
      REQUIRE(supervisor.Shell(kSession, "sleep 1000 >/dev/null 2>&1 &").code() == 0);
      Operators operators(supervisor);
      const auto [status, opened] = operators.Open(About(kSession));
      REQUIRE(status.ok());
      const std::string container = opened.incident().sandboxes(0).container_id();
      supervisor.Stop(SIGKILL);
      if (damaged) {
        std::ofstream(supervisor.state_dir() + "/creel.db", std::ios::binary)
            << std::string(8192, 'x');
      } else {
        fs::remove(supervisor.state_dir() + "/creel.db");
      }
      fs::remove(supervisor.state_dir() + "/creel.db-wal");
      fs::remove(supervisor.state_dir() + "/creel.db-shm");
      supervisor.StartAgain();
      Operators again(supervisor);
      CHECK(again.Get("1").second.state() == "open");
      CHECK(ContainersOf(supervisor) == std::vector<std::string>{container});
      CHECK_FALSE(supervisor.Exec(kSession, {"true"}).status.ok());
      const auto [captured, bundle] = again.Capture("1");
      CAPTURE(captured.error_message());
      REQUIRE(captured.ok());
      CHECK(Names(bundle.path()).find("workspace/kept\n") != std::string::npos);
      const grpc::Status down = again.Teardown("1");
      CAPTURE(down.error_message());
      CHECK(down.ok());
      CHECK(Eventually([&] { return TracesOf(supervisor) == before; }));
    }
  }

  TEST_CASE("closing a frozen session by force is what it says; unknown things are named") {
    Supervisor supervisor;
    Operators operators(supervisor);
    CHECK(operators.Open(About("agent:main:dm:none")).first.error_code() ==
          grpc::StatusCode::NOT_FOUND);
    operator_::v1::OpenIncidentRequest nothing;
    nothing.set_reason("x");
    CHECK(operators.Open(nothing).first.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    nothing.set_all(true);
    nothing.clear_reason();
    CHECK(operators.Open(nothing).first.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(operators.Get("1").first.error_code() == grpc::StatusCode::NOT_FOUND);
    CHECK(operators.Get("../1").first.error_code() == grpc::StatusCode::NOT_FOUND);
    CHECK(supervisor.Creel({"incident", "open", "--reason", "x"}).exit_code == 2);
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    REQUIRE(operators.Open(About(kSession)).first.ok());
    CHECK(supervisor.Creel({"close", kSession}).exit_code == 1);
    CHECK(supervisor.Creel({"close", "--force", kSession}).exit_code == 0);
    CHECK(operators.Thaw("1").ok());
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
  }
}

}  // namespace
}  // namespace creel::testing
