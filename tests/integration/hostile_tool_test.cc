// What a hostile tool process tries, and what must stop it.
#include <doctest/doctest.h>

#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "tests/integration/support/gvisor.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

constexpr char kSession[] = "agent:main:whatsapp:group:120363";
constexpr char kOther[] = "agent:main:telegram:dm:42";

// Runs one of the programs that exit with 0 if nothing they tried worked. What gVisor lets through
// has no effect there, or ends in gVisor's own kernel; docs/modes.md tells each.
void Holds(Supervisor& supervisor, const std::string& program,
           const std::vector<std::string>& let_through_by_gvisor = {}) {
  const std::string path = supervisor.PutProgram(kSession, program);
  const Outcome outcome = supervisor.Exec(kSession, {path});
  CAPTURE(outcome.status.error_message());
  CAPTURE(outcome.out);
  CHECK(outcome.code() == (outcome.out.find("BROKE") == std::string::npos ? 0 : 1));
  CHECK(outcome.out.find("held:") != std::string::npos);
  CHECK(BrokenBut(outcome.out, let_through_by_gvisor) == std::vector<std::string>{});
}

int Survivors(Supervisor& supervisor) {
  const Outcome list =
      supervisor.Shell(kSession,
                       "n=$(grep -ls creel-survivor /proc/[0-9]*/comm | wc -l); "
                       "m=$(readlink /proc/[0-9]*/exe 2>/dev/null | grep -c '/survive$'); "
                       "[ $m -gt $n ] && n=$m; echo $n");
  return list.has_exit ? std::atoi(list.out.c_str()) : -1;
}

TEST_SUITE("HostileTool") {
  TEST_CASE("it cannot signal, trace, read, starve or rob the shim") {
    Supervisor supervisor;
    // Read: where its memory lies and what its environment was, which says nothing; nice and affinity
    // are numbers that gVisor keeps and does not use.
    Holds(supervisor, "attack_shim",
          {"environ", "maps", "auxv", "fd/0", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "affinity",
           "nice"});
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
  }

  TEST_CASE("it cannot make the system calls and sockets that the profile takes away") {
    Supervisor supervisor;
    // There is no filter under gVisor; these end in its own kernel.
    Holds(supervisor, "forbidden_calls",
          {"uevent", "io_uring_setup", "unshare user", "unshare mount", "unshare net",
           "clone with a user namespace", "chroot", "syslog"});
  }

  TEST_CASE("it cannot gain a capability or an identity, nor leave a set-id file") {
    Supervisor supervisor;
    // The group is the mark by which the shim finds a command's processes where it is no subreaper.
    Holds(supervisor, "gain_privilege", {"supplementary groups", "chmod to set-id"});
  }

  TEST_CASE("it cannot connect as the shim, nor crowd it out") {
    Supervisor supervisor;
    Holds(supervisor, "link_crowd");
    // While it crowds, the link is broken and made again.
    const Outcome crowd = supervisor.Shell(
        kSession, "for i in 1 2 3 4 5 6 7 8; do ./link_crowd 5 >/dev/null 2>&1 & done; echo going");
    REQUIRE(crowd.out == "going\n");
    supervisor.Restart(SIGKILL);
    CHECK(supervisor.Exec(kSession, {"echo", "back"}).out == "back\n");
  }

  TEST_CASE("it does not outlive its time-out, whatever it does to hide") {
    Supervisor supervisor;
    const std::string program = supervisor.PutProgram(kSession, "survive");
    for (const char* kind : {"ignore", "setsid", "double-fork", "empty-env", "kill-parent",
                             "stopped", "false-name", "new-user-ns", "run-away"}) {
      CAPTURE(std::string(kind));
      const Outcome outcome = supervisor.Exec(kSession, {program, kind}, [](auto& start) {
        start.mutable_spec()->mutable_timeout()->set_seconds(Times(0, 2));
        start.mutable_spec()->mutable_timeout()->set_nanos(300'000'000);
        start.mutable_spec()->mutable_grace()->set_nanos(100'000'000);
      });
      CAPTURE(outcome.status.error_message());
      REQUIRE(outcome.has_exit);
      CHECK(outcome.exit.timed_out());
      CHECK(Survivors(supervisor) == 0);
    }
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
  }

  TEST_CASE("a command that ends by itself leaves its background children be") {
    Supervisor supervisor;
    const std::string program = supervisor.PutProgram(kSession, "survive");
    const Outcome outcome = supervisor.Shell(
        kSession, program + " ignore >/dev/null 2>&1 & sleep 0.3; echo started");
    CHECK(outcome.out == "started\n");
    CHECK(Survivors(supervisor) == 1);
  }

  TEST_CASE("it cannot reach the host's files") {
    Supervisor supervisor;
    const std::string secret = supervisor.dir() + "/secret.txt";
    std::ofstream(secret) << "the host's own";
    const Outcome read = supervisor.Shell(
        kSession, "cat " + secret + " /workspace/../.." + secret + " 2>&1; find " +
                      supervisor.dir() + " 2>&1; cat /proc/1/root" + secret + " 2>&1");
    CHECK(read.out.find("the host's own") == std::string::npos);
    // Links in the workspace that point out are not followed by the file verbs.
    REQUIRE(supervisor
                .Shell(kSession, "ln -s " + secret + " out; ln -s / root; ln -s /proc/self/root "
                                 "magic; ln -s ../../../../etc/shadow up; ln -s /etc/shadow s")
                .code() == 0);
    for (const std::string path : {"out", "root/etc/shadow", "magic/etc/shadow", "up", "s",
                                   "../etc/shadow", "/etc/shadow", "/proc/1/environ"}) {
      CAPTURE(path);
      const auto [status, data] = supervisor.Read(kSession, path);
      CHECK_FALSE(status.ok());
      CHECK(data.empty());
      CHECK_FALSE(supervisor.Write(kSession, path, "x").ok());
    }
    std::ifstream still(secret);
    std::string text;
    std::getline(still, text);
    CHECK(text == "the host's own");
  }

  TEST_CASE("it sees no engine socket, no other sandbox and no network but loopback") {
    Supervisor supervisor;
    REQUIRE(supervisor.Open(kOther).ok());
    REQUIRE(supervisor.Write(kOther, "mine", "other's").ok());
    const Outcome sockets = supervisor.Shell(
        kSession, "find / -xdev -name '*.sock' 2>/dev/null; find /run /var /tmp -type s 2>/dev/null");
    CHECK(sockets.out.find("docker") == std::string::npos);
    CHECK(sockets.out.find("gateway") == std::string::npos);
    const Outcome net = supervisor.Shell(
        kSession, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; cat /proc/net/route | wc -l");
    CHECK(net.out.find("eth") == std::string::npos);
    CHECK(net.out.find("docker") == std::string::npos);
    const Outcome processes = supervisor.Shell(kSession, "echo /proc/[0-9]* | wc -w");
    CHECK(std::atoi(processes.out.c_str()) < 20);
    CHECK(supervisor.Shell(kSession, "find / -name mine 2>/dev/null").out.empty());
    CHECK(supervisor.Shell(kOther, "id -u").out != supervisor.Shell(kSession, "id -u").out);
  }

  TEST_CASE("a fork bomb stays in its pot, and stops when told") {
    if (NotUnderGvisor("", "runsc --ignore-cgroups limits no processes (no-pids-limit)")) {
      return;
    }
    Supervisor supervisor;
    REQUIRE(supervisor.Open(kOther).ok());
    const std::string program = supervisor.PutProgram(kSession, "fork_bomb");
    std::thread bomb([&] {
      const Outcome outcome = supervisor.Exec(kSession, {program}, [](auto& start) {
        start.mutable_spec()->mutable_timeout()->set_seconds(2);
        start.mutable_spec()->mutable_grace()->set_nanos(1);
      });
      CHECK(outcome.exit.timed_out());
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(1000));
    const auto begin = std::chrono::steady_clock::now();
    CHECK(supervisor.Exec(kOther, {"echo", "calm"}).out == "calm\n");
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(2));
    // File calls of the bombed sandbox still answer.
    CHECK(supervisor.Write(kSession, "note", "still here").ok());
    bomb.join();
    const Outcome after = supervisor.Shell(kSession, "echo /proc/[0-9]* | wc -w");
    CHECK(after.code() == 0);
    CHECK(std::atoi(after.out.c_str()) < 20);
  }

  TEST_CASE("it cannot use more memory or disk than it was given") {
    Supervisor supervisor(
        {.sandbox_config = "  limits:\n    memory: 256MiB\n    workspace: 64MiB\n    tmp: 32MiB\n"
                           "    shm: 16MiB\n    run: 8MiB\n"});
    if (!NotUnderGvisor("memory", "runsc --ignore-cgroups limits none (no-memory-limit)")) {
      const Outcome memory = supervisor.Exec(
          kSession, {"python3", "-c", "b=[]\nwhile True: b.append(bytearray(16<<20))"});
      CHECK(memory.code() != 0);
    }
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
    for (const char* place : {"/workspace", "/tmp", "/dev/shm", "/run"}) {
      CAPTURE(place);
      const Outcome disk = supervisor.Shell(
          kSession, std::string("cd ") + place + " && dd if=/dev/zero of=big bs=1M count=200 2>&1; "
                                                 "wc -c < big; rm -f big");
      CHECK(disk.out.find("209715200\n") == std::string::npos);
    }
    // A hundred thousand small files are bounded too, and removed again.
    const Outcome files = supervisor.Shell(
        kSession, "mkdir many && cd many && for i in $(seq 1 " +
                      std::to_string(Times(100'000, 1'000)) +
                      "); do true > f$i || break; done; echo f* | wc -w; cd ..; rm -rf many");
    CHECK(files.has_exit);
    CHECK(supervisor.Write(kSession, "after", "ok").error_message() == "");
  }

  TEST_CASE("a line of 1 GiB neither stops the supervisor nor is lost to a reader that keeps up") {
    Supervisor supervisor;
    grpc::ClientContext context;
    const auto stream = supervisor.gateway().Exec(&context);
    gateway::v1::ExecRequest request;
    request.mutable_start()->mutable_context()->set_session(kSession);
    const uint64_t length = Times(1u << 30, 16u << 20);
    request.mutable_start()->mutable_spec()->set_shell("head -c " + std::to_string(length) +
                                                       " /dev/zero | tr '\\0' x");
    request.mutable_start()->mutable_spec()->set_overflow(shim::v1::OVERFLOW_BLOCK);
    stream->Write(request);
    uint64_t bytes = 0;
    uint64_t gaps = 0;
    gateway::v1::ExecResponse response;
    while (stream->Read(&response)) {
      bytes += response.event().output().data().size();
      gaps += response.event().has_gap() ? 1 : 0;
    }
    CHECK(stream->Finish().ok());
    CHECK(bytes == length);
    CHECK(gaps == 0);
  }

  TEST_CASE("a fifo or a leased file holds no file call up") {
    Supervisor supervisor;
    REQUIRE(supervisor.Shell(kSession, "mkfifo fifo").code() == 0);
    const auto begin = std::chrono::steady_clock::now();
    CHECK_FALSE(supervisor.Read(kSession, "fifo").first.ok());
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(2));
    if (NotUnderGvisor("leased file", "gVisor has no leases")) {
      return;
    }
    const std::string program = supervisor.PutProgram(kSession, "hold_lease");
    std::thread holder([&] {
      supervisor.Exec(kSession, {program, "leased"}, [](auto& start) {
        start.mutable_spec()->mutable_timeout()->set_seconds(5);
      });
    });
    CHECK(Eventually([&] { return supervisor.Shell(kSession, "test -s leased").code() == 0; }));
    const auto from = std::chrono::steady_clock::now();
    CHECK_FALSE(supervisor.Read(kSession, "leased").first.ok());
    CHECK(std::chrono::steady_clock::now() - from < std::chrono::seconds(2));
    holder.join();
  }

  TEST_CASE("it cannot take another sandbox's or the host user's inotify instances") {
    Supervisor supervisor;
    const std::string program = supervisor.PutProgram(kSession, "hog_inotify");
    REQUIRE(supervisor.Open(kOther).ok());
    std::thread hog([&] {
      const Outcome outcome = supervisor.Exec(kSession, {program}, [](auto& start) {
        start.mutable_spec()->mutable_timeout()->set_seconds(4);
      });
      CHECK(std::atoi(outcome.out.c_str()) > 0);
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(3));
    gateway::v1::WatchRequest request;
    request.mutable_context()->set_session(kOther);
    request.mutable_args()->set_path(".");
    const auto watch = supervisor.gateway().Watch(&context, request);
    gateway::v1::WatchResponse response;
    CHECK(watch->Read(&response));
    CHECK(response.event().kind() == shim::v1::WATCH_KIND_READY);
    context.TryCancel();
    hog.join();
  }

  TEST_CASE("the host follows no link that a sandbox planted when it removes it") {
    Supervisor supervisor;
    const std::string precious = supervisor.dir() + "/precious";
    std::filesystem::create_directory(precious);
    std::ofstream(precious + "/file") << "x";
    REQUIRE(supervisor
                .Shell(kSession, "ln -s " + precious + " a; mkdir d; ln -s " + precious +
                                 " d/b; ln -s / d/c; ln -s ../../../.. d/up")
                .code() == 0);
    REQUIRE(supervisor.Close(kSession).ok());
    CHECK(std::filesystem::exists(precious + "/file"));
    CHECK(ContainersOf(supervisor).empty());
    CHECK(MountsWith(supervisor.state_dir() + "/").empty());
  }
}

}  // namespace
}  // namespace creel::testing
