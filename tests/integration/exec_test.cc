// Commands and their output, through the whole way: gateway.sock, supervisor, shim, and back.
#include <doctest/doctest.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/support/gvisor.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

using shim::v1::Exit;

constexpr char kSession[] = "agent:main:whatsapp:group:120363";

size_t OpenDescriptors(pid_t pid) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& each :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    ++count;
  }
  return count;
}

// Processes in the sandbox besides the shim's own and the asking shell.
int StrayProcesses(Supervisor& supervisor, const std::string& session) {
  const Outcome list = supervisor.Shell(
      session,
      "n=0; for p in /proc/[0-9]*; do [ -O $p ] && "
      "[ ${p#/proc/} != $$ ] && grep -qvs 'PPid:\\s*'$$ $p/status && "
      "! grep -qs \"^PPid:[[:space:]]*$$\\$\" $p/status && n=$((n+1)); done; echo $n");
  return std::atoi(list.out.c_str());
}

TEST_SUITE("Exec") {
  TEST_CASE("a command's output, error output and status come back as they were") {
    Supervisor supervisor;
    const Outcome outcome =
        supervisor.Shell(kSession, "printf out; printf err >&2; pwd; id -u; exit 7");
    CAPTURE(outcome.status.error_message());
    REQUIRE(outcome.status.ok());
    CHECK(outcome.code() == 7);
    CHECK(outcome.err == "err");
    CHECK(outcome.out.substr(0, 3) == "out");
    CHECK(outcome.out.find("/workspace\n") != std::string::npos);
    CHECK(outcome.out.find("\n0\n") == std::string::npos);

    SUBCASE("an argv is passed word for word") {
      const Outcome words =
          supervisor.Exec(kSession, {"printf", "%s|", "a b", "", "$HOME", "new\nline", "\xc3\xa9"});
      CHECK(words.out == "a b||$HOME|new\nline|\xc3\xa9|");
    }
    SUBCASE("a signal's number is told, not a code") {
      const Outcome killed = supervisor.Shell(kSession, "kill -SEGV $$");
      CHECK(killed.exit.how_case() == Exit::kSignal);
      CHECK(killed.exit.signal() == SIGSEGV);
    }
    SUBCASE("a program that is not there is a start failure that names it") {
      const Outcome missing = supervisor.Exec(kSession, {"no-such-program"});
      REQUIRE(missing.has_exit);
      CHECK(missing.exit.how_case() == Exit::kStartFailure);
      CHECK(missing.exit.start_failure().message().find("no-such-program") != std::string::npos);
    }
    SUBCASE("a working directory that is missing or a file is a start failure that names it") {
      for (const char* cwd : {"/workspace/nowhere", "/etc/passwd"}) {
        const Outcome lost = supervisor.Exec(
            kSession, {"true"}, [&](auto& start) { start.mutable_spec()->set_cwd(cwd); });
        CHECK(lost.exit.how_case() == Exit::kStartFailure);
        CHECK(lost.exit.start_failure().step() == shim::v1::START_STEP_CWD);
        CHECK(lost.exit.start_failure().message().find(cwd) != std::string::npos);
      }
    }
    SUBCASE("stdin arrives whole") {
      std::string input(10 << 20, '\0');
      std::mt19937 random(7);
      for (char& byte : input) {
        byte = static_cast<char>(random());
      }
      const Outcome cat = supervisor.Exec(
          kSession, {"cat"},
          [](auto& start) { start.mutable_spec()->set_overflow(shim::v1::OVERFLOW_BLOCK); }, input);
      CHECK(cat.code() == 0);
      CHECK(cat.out == input);
    }
    SUBCASE("variables are set, and the host's are not there") {
      const Outcome env = supervisor.Exec(kSession, {"env"}, [](auto& start) {
        (*start.mutable_spec()->mutable_env())["GREETING"] = "hello there";
      });
      CHECK(env.out.find("GREETING=hello there\n") != std::string::npos);
      CHECK(env.out.find("PATH=/") != std::string::npos);
      CHECK(env.out.find("HOME=/") != std::string::npos);
      CHECK(env.out.find("creel") == std::string::npos);
    }
  }

  TEST_CASE("a terminal has a size, a name and an interrupt key") {
    Supervisor supervisor;
    const Outcome size =
        supervisor.Exec(kSession, {"sh", "-c", "stty size; tty; test -t 0"}, [](auto& start) {
          auto& terminal = *start.mutable_spec()->mutable_terminal();
          terminal.set_rows(33);
          terminal.set_columns(101);
        });
    CAPTURE(size.status.error_message());
    CAPTURE(size.exit.ShortDebugString());
    CAPTURE(size.out);
    CHECK(size.code() == 0);
    CHECK(size.out.find("33 101") != std::string::npos);
    CHECK(size.out.find("/dev/pts/") != std::string::npos);

    if (NotUnderGvisor("interrupt key", "its terminals make no signal of a key")) {
      return;
    }
    const Outcome interrupted = supervisor.Exec(
        kSession, {"sleep", "60"}, [](auto& start) { start.mutable_spec()->mutable_terminal(); },
        "\x03", std::chrono::seconds(10));
    CHECK(interrupted.exit.how_case() == Exit::kSignal);
    CHECK(interrupted.exit.signal() == SIGINT);
  }

  TEST_CASE(
      "1,000 commands in a row (100 under gVisor): no byte mixed up, no process and no descriptor "
      "left") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    const size_t before = OpenDescriptors(supervisor.pid());
    for (int i = 0; i < Times(1000, 100); ++i) {
      const std::string text = "line " + std::to_string(i);
      const Outcome outcome = supervisor.Exec(
          kSession, {"sh", "-c", "echo \"$0\"; exit " + std::to_string(i % 256), text});
      REQUIRE(outcome.status.ok());
      REQUIRE(outcome.code() == i % 256);
      REQUIRE(outcome.out == text + "\n");
    }
    CHECK(StrayProcesses(supervisor, kSession) == 0);
    CHECK(OpenDescriptors(supervisor.pid()) <= before + 4);
  }

  TEST_CASE("100 commands at once (30 under gVisor): each gets its own output and its own status") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    const size_t before = OpenDescriptors(supervisor.pid());
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    const int commands = Times(100, 30);
    for (int i = 0; i < commands; ++i) {
      threads.emplace_back([&, i] {
        const Outcome outcome = supervisor.Shell(
            kSession, "sleep 0.5; seq " + std::to_string(i * 1000) + " " +
                          std::to_string(i * 1000 + 999) + "; exit " + std::to_string(i));
        std::string expected;
        for (int n = i * 1000; n < i * 1000 + 1000; ++n) {
          expected += std::to_string(n) + "\n";
        }
        right += outcome.code() == i && outcome.out == expected ? 1 : 0;
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(right == commands);
    CHECK(StrayProcesses(supervisor, kSession) == 0);
    CHECK(Eventually([&] { return OpenDescriptors(supervisor.pid()) <= before + 8; }));
  }

  TEST_CASE("a client that drops and attaches again from its offset gets the missing bytes") {
    Supervisor supervisor;
    std::string process_id;
    std::string first;
    {
      grpc::ClientContext context;
      const auto stream = supervisor.gateway().Exec(&context);
      gateway::v1::ExecRequest request;
      request.mutable_start()->mutable_context()->set_session(kSession);
      request.mutable_start()->set_detach(true);
      request.mutable_start()->mutable_spec()->set_shell(
          "for i in $(seq 1 2000); do echo row $i; done; sleep 1; echo end");
      stream->Write(request);
      gateway::v1::ExecResponse response;
      while (first.size() < 100 && stream->Read(&response)) {
        if (response.event().has_started()) {
          process_id = response.event().started().process_id();
        }
        first += response.event().output().data();
      }
      context.TryCancel();
      static_cast<void>(stream->Finish());
    }
    const uint64_t offset = 50;  // what the client had really digested
    grpc::ClientContext context;
    const auto stream = supervisor.gateway().AttachProcess(&context);
    gateway::v1::AttachProcessRequest request;
    request.mutable_attach()->mutable_context()->set_session(kSession);
    request.mutable_attach()->set_process_id(process_id);
    request.mutable_attach()->set_offset(offset);
    stream->Write(request);
    std::string all = first.substr(0, offset);
    gateway::v1::AttachProcessResponse response;
    bool exited = false;
    while (stream->Read(&response)) {
      CHECK_FALSE(response.event().has_gap());
      all += response.event().output().data();
      exited = exited || response.event().has_exit();
    }
    CHECK(stream->Finish().ok());
    std::string expected;
    for (int i = 1; i <= 2000; ++i) {
      expected += "row " + std::to_string(i) + "\n";
    }
    CHECK(all == expected + "end\n");
    CHECK(exited);
  }

  TEST_CASE("a slow reader holds up neither the command nor another reader, nor the supervisor") {
    Supervisor supervisor;
    grpc::ClientContext context;
    const auto stream = supervisor.gateway().Exec(&context);
    gateway::v1::ExecRequest request;
    request.mutable_start()->mutable_context()->set_session(kSession);
    request.mutable_start()->set_process_id("flood");
    request.mutable_start()->mutable_spec()->set_shell(
        "head -c " + std::to_string(Times(1 << 30, 1 << 26)) +
        " /dev/zero; echo done > /tmp/flood-is-over");
    stream->Write(request);
    // Nothing is read from this stream.
    CHECK(Eventually(
        [&] { return supervisor.Shell(kSession, "test -e /tmp/flood-is-over").code() == 0; },
        std::chrono::seconds(60)));
    const Outcome other = supervisor.Shell(kSession, "seq 1 100000 | tail -n 1");
    CHECK(other.out == "100000\n");
    std::ifstream status("/proc/" + std::to_string(supervisor.pid()) + "/status");
    std::string word;
    long resident_kb = 0;
    while (status >> word) {
      if (word == "VmRSS:") {
        status >> resident_kb;
      }
    }
    CHECK(resident_kb < 150'000);
    context.TryCancel();
    gateway::v1::ExecResponse ignored;
    while (stream->Read(&ignored)) {
    }
    static_cast<void>(stream->Finish());
  }

  TEST_CASE("a background process can be listed, fed, signalled and stopped") {
    Supervisor supervisor;
    std::thread running([&] {
      const Outcome outcome = supervisor.Exec(
          kSession, {"sh", "-c", "read line; echo got $line; : > got; sleep 100"}, [](auto& start) {
            start.set_process_id("worker");
            start.mutable_spec()->set_stdin(true);
          });
      CHECK(outcome.out == "got some input\n");
      CHECK(outcome.exit.stopped());
    });
    const auto send = [&](const std::function<void(shim::v1::ProcessInput&)>& fill) {
      grpc::ClientContext context;
      gateway::v1::SendInputRequest request;
      request.mutable_context()->set_session(kSession);
      request.set_process_id("worker");
      fill(*request.mutable_input());
      gateway::v1::SendInputResponse response;
      return supervisor.gateway().SendInput(&context, request, &response);
    };
    CHECK(Eventually(
        [&] { return send([](auto& input) { input.set_stdin("some input\n"); }).ok(); }));
    const auto list = [&] {
      grpc::ClientContext context;
      gateway::v1::ListProcessesRequest request;
      request.mutable_context()->set_session(kSession);
      gateway::v1::ListProcessesResponse response;
      CHECK(supervisor.gateway().ListProcesses(&context, request, &response).ok());
      return response;
    };
    bool found = false;
    const gateway::v1::ListProcessesResponse listed = list();
    for (const auto& each : listed.processes()) {
      found = found || (each.process_id() == "worker" && !each.has_exit());
    }
    CHECK(found);
    CHECK(Eventually([&] { return supervisor.Exec(kSession, {"test", "-e", "got"}).code() == 0; }));
    CHECK(send([](auto& input) { input.mutable_stop(); }).ok());
    running.join();
    CHECK(StrayProcesses(supervisor, kSession) == 0);
  }

  TEST_CASE("a caller that goes away takes its command with it") {
    Supervisor supervisor;
    {
      grpc::ClientContext context;
      const auto stream = supervisor.gateway().Exec(&context);
      gateway::v1::ExecRequest request;
      request.mutable_start()->mutable_context()->set_session(kSession);
      request.mutable_start()->mutable_spec()->set_shell("echo up; sleep 1000");
      stream->Write(request);
      gateway::v1::ExecResponse response;
      while (stream->Read(&response) && !response.event().has_output()) {
      }
      context.TryCancel();
      static_cast<void>(stream->Finish());
    }
    CHECK(Eventually([&] { return StrayProcesses(supervisor, kSession) == 0; }));
  }
}

}  // namespace
}  // namespace creel::testing
