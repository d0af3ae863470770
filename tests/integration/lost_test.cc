// What waits when something it needs goes away: it ends soon, and is told what went.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>
#include <string>
#include <thread>

#include "tests/integration/support/gvisor.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

using Steady = std::chrono::steady_clock;
using shim::v1::Exit;

constexpr char kSession[] = "agent:main:whatsapp:group:120363";

// A long command and a long file call, both waiting.
struct Waiting {
  std::future<Outcome> command;
  std::future<grpc::Status> watch;

  explicit Waiting(Supervisor& supervisor) {
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    command = std::async(std::launch::async, [&] {
      return supervisor.Exec(kSession, {"sleep", "1000"});
    });
    std::promise<void> ready;
    watch = std::async(std::launch::async, [&supervisor, &ready] {
      grpc::ClientContext context;
      gateway::v1::WatchRequest request;
      request.mutable_context()->set_session(kSession);
      request.mutable_args()->set_path(".");
      const auto reader = supervisor.gateway().Watch(&context, request);
      gateway::v1::WatchResponse response;
      bool told = false;
      while (reader->Read(&response)) {
        if (!told) {
          told = true;
          ready.set_value();
        }
      }
      return reader->Finish();
    });
    ready.get_future().wait_for(std::chrono::seconds(10));
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }

  // Both end within a second and name the cause.
  void EndSoonNaming(const std::string& cause) {
    const auto begin = Steady::now();
    REQUIRE(command.wait_for(std::chrono::seconds(5)) == std::future_status::ready);
    REQUIRE(watch.wait_for(std::chrono::seconds(5)) == std::future_status::ready);
    CHECK(Steady::now() - begin < std::chrono::milliseconds(1200));
    const Outcome outcome = command.get();
    const grpc::Status status = watch.get();
    const std::string told =
        outcome.has_exit ? outcome.exit.lost() : outcome.status.error_message();
    CAPTURE(told);
    CAPTURE(status.error_message());
    CHECK(outcome.code() == -1);
    CHECK(told.find(cause) != std::string::npos);
    CHECK(status.error_code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(status.error_message().find(cause) != std::string::npos);
  }
};

Finished Docker(const Supervisor& supervisor, std::vector<std::string> arguments) {
  const std::string& host = supervisor.engine_host();
  arguments.insert(arguments.begin(), "docker");
  if (!host.empty()) {
    arguments.insert(arguments.begin() + 1, {"-H", host});
  }
  return RunProgram(arguments);
}

std::string InitPid(const Supervisor& supervisor, const std::string& container) {
  std::string pid = Docker(supervisor, {"inspect", "-f", "{{.State.Pid}}", container}).out;
  pid.erase(pid.find_last_not_of('\n') + 1);
  return pid;
}

// Starts a command of some seconds, and leaves it once it has begun to write.
void StartTicking(Supervisor& supervisor) {
  grpc::ClientContext context;
  const auto stream = supervisor.gateway().Exec(&context);
  gateway::v1::ExecRequest request;
  request.mutable_start()->mutable_context()->set_session(kSession);
  request.mutable_start()->set_process_id("long");
  request.mutable_start()->set_detach(true);
  request.mutable_start()->mutable_spec()->set_shell(
      "for i in $(seq 1 40); do echo tick $i; sleep 0.1; done");
  stream->Write(request);
  gateway::v1::ExecResponse response;
  while (stream->Read(&response) && !response.event().has_output()) {
  }
  context.TryCancel();
  static_cast<void>(stream->Finish());
}

// It goes on to its end, and all that it wrote is there.
void TickedToTheEnd(Supervisor& supervisor) {
  grpc::ClientContext context;
  const auto stream = supervisor.gateway().AttachProcess(&context);
  gateway::v1::AttachProcessRequest request;
  request.mutable_attach()->mutable_context()->set_session(kSession);
  request.mutable_attach()->set_process_id("long");
  stream->Write(request);
  std::string all;
  int code = -1;
  gateway::v1::AttachProcessResponse response;
  while (stream->Read(&response)) {
    all += response.event().output().data();
    code = response.event().has_exit() ? response.event().exit().code() : code;
  }
  CHECK(stream->Finish().ok());
  std::string expected;
  for (int i = 1; i <= 40; ++i) {
    expected += "tick " + std::to_string(i) + "\n";
  }
  CHECK(all == expected);
  CHECK(code == 0);
}

// What the shim of this session has told in its greeting.
std::string ShimVersion(Supervisor& supervisor, const std::string& session) {
  grpc::ClientContext context;
  operator_::v1::InspectSessionRequest request;
  request.set_session(session);
  operator_::v1::InspectSessionResponse response;
  CHECK(supervisor.operators().InspectSession(&context, request, &response).ok());
  return response.shim_version();
}

// Which shim the container has: the hash of what it was started from.
std::string RunningShim(const Supervisor& supervisor, const std::string& container) {
  const Finished sum =
      Docker(supervisor, {"exec", "-u", "0", container, "sha256sum", "/.creel/creel-shim"});
  CAPTURE(sum.err);
  REQUIRE(sum.exit_code == 0);
  return sum.out.substr(0, 64);
}

TEST_SUITE("Lost") {
  TEST_CASE(
      "the shim killed from outside ends every waiting call, and the next one gets a new sandbox") {
    Supervisor supervisor;
    REQUIRE(supervisor.Write(kSession, "kept", "no").ok());
    Waiting waiting(supervisor);
    kill(std::stoi(InitPid(supervisor, supervisor.Get(kSession).container_id())), SIGKILL);
    waiting.EndSoonNaming("container");
    const Outcome again = supervisor.Exec(kSession, {"echo", "again"});
    CHECK(again.out == "again\n");
    CHECK(ContainersOf(supervisor).size() == 1);
  }

  TEST_CASE("the container removed behind our back ends every waiting call") {
    Supervisor supervisor;
    Waiting waiting(supervisor);
    const std::string id = supervisor.Get(kSession).container_id();
    std::thread remove([&] { Docker(supervisor, {"rm", "-f", id}); });
    waiting.EndSoonNaming("container");
    remove.join();
    CHECK(supervisor.Exec(kSession, {"echo", "again"}).out == "again\n");
  }

  TEST_CASE(
      "the supervisor killed and started again: the command goes on, its output is all there") {
    Supervisor supervisor;
    REQUIRE(supervisor.Write(kSession, "kept", "yes").ok());
    StartTicking(supervisor);
    const std::string container = supervisor.Get(kSession).container_id();
    supervisor.Restart(SIGKILL);
    CHECK(supervisor.Get(kSession).container_id() == container);
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
    TickedToTheEnd(supervisor);
  }

  TEST_CASE("a clean stop leaves the containers, and the next start adopts them") {
    Supervisor supervisor;
    REQUIRE(supervisor.Write(kSession, "kept", "yes").ok());
    const std::string container = supervisor.Get(kSession).container_id();
    supervisor.Restart(SIGTERM);
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
    CHECK(supervisor.Get(kSession).container_id() == container);
  }

  TEST_CASE("a sandbox made by the previous build is adopted by the next one and serves") {
    Supervisor supervisor({.shim = std::string(CREEL_TEST_PROGRAMS) + "/creel-shim-previous"});
    REQUIRE(supervisor.Write(kSession, "kept", "yes").ok());
    CHECK(ShimVersion(supervisor, kSession) == CREEL_TEST_PREVIOUS_VERSION);
    StartTicking(supervisor);
    const std::string container = supervisor.Get(kSession).container_id();
    const std::string old_shim = RunningShim(supervisor, container);
    supervisor.Restart(SIGTERM, CREEL_TEST_SHIM);

    // The old one goes on with what ran, and serves.
    CHECK(supervisor.Get(kSession).container_id() == container);
    CHECK(ShimVersion(supervisor, kSession) == CREEL_TEST_PREVIOUS_VERSION);
    CHECK(supervisor.Read(kSession, "kept").second == "yes");
    CHECK(supervisor.Exec(kSession, {"echo", "serves"}).out == "serves\n");
    CHECK(supervisor.Write(kSession, "new", "too").ok());
    TickedToTheEnd(supervisor);
    CHECK(RunningShim(supervisor, container) == old_shim);

    // A new one gets the new shim, and so does the old session once its container is gone.
    const std::string other = "agent:main:telegram:dm:1";
    REQUIRE(supervisor.Exec(other, {"true"}).code() == 0);
    CHECK(ShimVersion(supervisor, other) == CREEL_TEST_VERSION);
    CHECK(RunningShim(supervisor, supervisor.Get(other).container_id()) != old_shim);
    REQUIRE(supervisor.Close(kSession).ok());
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    CHECK(ShimVersion(supervisor, kSession) == CREEL_TEST_VERSION);
  }

  TEST_CASE(
      "closing a session leaves nothing of it, and 20 openings and closings (5 under gVisor) leave "
      "nothing") {
    Supervisor supervisor;
    for (int i = 0; i < Times(20, 5); ++i) {
      const std::string session = "agent:main:telegram:dm:" + std::to_string(i);
      const Outcome outcome = supervisor.Exec(session, {"true"});
      CAPTURE(outcome.status.error_message());
      REQUIRE(outcome.code() == 0);
      REQUIRE(supervisor.Close(session).ok());
    }
    CHECK(ContainersOf(supervisor).empty());
    CHECK(MountsWith(supervisor.dir() + "/").empty());
    CHECK(std::filesystem::is_empty(supervisor.run_dir() + "/sandboxes"));
  }

  TEST_CASE("killed in the middle of opening sessions, the next start finds no orphan") {
    Supervisor supervisor;
    for (int round = 0; round < Times(5, 2); ++round) {
      std::vector<std::thread> openings;
      for (int i = 0; i < 4; ++i) {
        openings.emplace_back([&, i] {
          static_cast<void>(
              supervisor.Exec("agent:main:telegram:dm:" + std::to_string(round * 10 + i), {"true"},
                              {}, "", std::chrono::seconds(3)));
        });
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(60 + 110 * round));
      supervisor.Stop(SIGKILL);
      for (std::thread& each : openings) {
        each.join();
      }
      supervisor.StartAgain();
    }
    grpc::ClientContext context;
    operator_::v1::ListSessionsResponse sessions;
    REQUIRE(supervisor.operators().ListSessions(&context, {}, &sessions).ok());
    const auto known = static_cast<size_t>(sessions.sessions_size());
    CHECK(ContainersOf(supervisor).size() == known);
    size_t folders = 0;
    for ([[maybe_unused]] const auto& each :
         std::filesystem::directory_iterator(supervisor.run_dir() + "/sandboxes")) {
      ++folders;
    }
    CHECK(folders == known);
    for (const auto& each : sessions.sessions()) {
      CHECK(supervisor.Exec(each.session().session(), {"true"}).code() == 0);
    }
  }

  TEST_CASE("a frozen session refuses calls with the reason until it is thawed") {
    Supervisor supervisor;
    REQUIRE(supervisor
                .Shell(kSession,
                       "(while :; do date +%s%N > beat; sleep 0.02; done) "
                       ">/dev/null 2>&1 &")
                .code() == 0);
    operator_::v1::FreezeSessionRequest freeze;
    freeze.set_session(kSession);
    freeze.set_reason("someone asked for find ~");
    {
      grpc::ClientContext context;
      operator_::v1::FreezeSessionResponse response;
      REQUIRE(supervisor.operators().FreezeSession(&context, freeze, &response).ok());
    }
    const Outcome refused = supervisor.Exec(kSession, {"true"});
    CHECK(refused.status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(refused.status.error_message().find("someone asked for find ~") != std::string::npos);
    // It stays so over a restart.
    supervisor.Restart(SIGKILL);
    CHECK(supervisor.Get(kSession).state() == gateway::v1::SESSION_STATE_FROZEN);
    CHECK_FALSE(supervisor.Exec(kSession, {"true"}).status.ok());
    {
      grpc::ClientContext context;
      operator_::v1::ThawSessionRequest request;
      request.set_session(kSession);
      operator_::v1::ThawSessionResponse response;
      const grpc::Status thawed = supervisor.operators().ThawSession(&context, request, &response);
      CAPTURE(thawed.error_message());
      REQUIRE(thawed.ok());
    }
    const Outcome on = supervisor.Exec(kSession, {"echo", "on"});
    CAPTURE(on.status.error_message());
    CAPTURE(on.exit.ShortDebugString());
    CHECK(on.out == "on\n");
    const std::string beat = supervisor.Read(kSession, "beat").second;
    CHECK(Eventually([&] { return supervisor.Read(kSession, "beat").second != beat; }));
  }
}

}  // namespace
}  // namespace creel::testing
