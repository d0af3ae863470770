#include "agent-shim/exec/process.h"

#include <dirent.h>
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "agent-shim/exec/process_table.h"
#include "tests/agent-shim/exec/exec_harness.h"

namespace creel::shim {
namespace {

v1::ProcessInput Typed(const std::string& text) {
  v1::ProcessInput input;
  input.set_stdin(text);
  return input;
}

absl::Status Send(Process& process, const v1::ProcessInput& input) {
  absl::Status result = absl::UnknownError("done was not called");
  process.Send(input, true, [&result](const absl::Status& status) { result = status; });
  return result;
}

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

}  // namespace

TEST_SUITE("Process") {
  TEST_CASE("exit status, signal and both outputs are told as they were") {
    Harness harness;
    const Outcome plain = harness.Run(Shell("sleep 0.1; echo out; echo err >&2; exit 7"));
    CHECK(plain.out == "out\n");
    CHECK(plain.err == "err\n");
    CHECK(plain.exit.code() == 7);
    CHECK(plain.exit.output_bytes() == 8);
    CHECK(plain.started.pid() > 0);
    CHECK(plain.exit.kill_step() == v1::KILL_STEP_UNSPECIFIED);
    const Outcome killed = harness.Run(Shell("kill -9 $$"));
    CHECK(killed.exit.signal() == SIGKILL);
    CHECK_FALSE(killed.exit.stopped());
  }

  TEST_CASE("a command that cannot start says which step failed and why") {
    Harness harness;
    std::ofstream("/tmp/creel-test-plain") << "x";
    v1::CommandSpec in_file = Program({"true"});
    in_file.set_cwd("/tmp/creel-test-plain");
    v1::CommandSpec nowhere = Program({"true"});
    nowhere.set_cwd("/no/such");
    struct Row {
      v1::CommandSpec spec;
      v1::StartStep step;
      int error;
      const char* message;
    };
    const Row rows[] = {
        {Program({"no-such-program"}), v1::START_STEP_EXEC, ENOENT,
         "no such program: 'no-such-program'"},
        {Program({""}), v1::START_STEP_EXEC, ENOENT, "no such program: ''"},
        {Program({"/tmp"}), v1::START_STEP_EXEC, EACCES, "'/tmp' may not be executed"},
        {nowhere, v1::START_STEP_CWD, ENOENT, "no such directory: '/no/such'"},
        {in_file, v1::START_STEP_CWD, ENOTDIR, "not a directory: '/tmp/creel-test-plain'"},
    };
    for (const Row& row : rows) {
      CAPTURE(row.message);
      const Outcome outcome = harness.Run(row.spec);
      REQUIRE(outcome.exit.has_start_failure());
      CHECK(outcome.exit.start_failure().step() == row.step);
      CHECK(outcome.exit.start_failure().error() == row.error);
      CHECK(outcome.exit.start_failure().message() == row.message);
    }
    unlink("/tmp/creel-test-plain");
  }

  TEST_CASE("what is not a command is refused before anything runs") {
    Harness harness;
    v1::CommandSpec both = Shell("true");
    both.add_argv("true");
    v1::CommandSpec bad_name = Program({"true"});
    (*bad_name.mutable_env())["A=B"] = "c";
    v1::CommandSpec negative = Program({"true"});
    negative.mutable_timeout()->set_seconds(-1);
    const v1::CommandSpec rows[] = {
        v1::CommandSpec(),
        both,
        bad_name,
        negative,
        Program({std::string("a\0b", 3)}),
        Program({"echo", std::string(131'072, 'x')}),
    };
    for (const v1::CommandSpec& spec : rows) {
      CHECK(absl::IsInvalidArgument(harness.Run(spec).status));
    }
    CHECK(absl::IsInvalidArgument(harness.Start(Program({"true"}), "a/b").status()));
    REQUIRE(harness.Start(Program({"sleep", "5"}), "same").ok());
    CHECK(absl::IsAlreadyExists(harness.Start(Program({"true"}), "same").status()));
  }

  TEST_CASE("two megabytes of arguments arrive whole") {
    Harness harness;
    v1::CommandSpec spec = Program({"sh", "-c", "echo $#", "sh"});
    for (int i = 0; i < 15; ++i) {
      spec.add_argv(std::string(100'000, 'a'));
    }
    CHECK(harness.Run(spec).out == "15\n");
  }

  TEST_CASE("environment, directory, stdin and limits are as asked for") {
    Harness harness;
    v1::CommandSpec spec = Shell("echo $A $PATH; pwd; cat; umask; ulimit -n; ulimit -c; nice");
    (*spec.mutable_env())["A"] = "given";
    spec.set_cwd("/usr");
    const Outcome outcome = harness.Run(spec);
    const int nice = std::min(19, getpriority(PRIO_PROCESS, 0) + 10);
    CHECK(outcome.out == "given /usr/local/bin:/usr/bin:/bin\n/usr\n0022\n1024\n0\n" +
                             std::to_string(nice) + "\n");
    CHECK(harness.Run(Shell("cat /proc/self/oom_score_adj")).out == "500\n");
    CHECK(harness.Run(Shell("ls -l /proc/self/fd | grep -c ' -> '")).out == "4\n");
  }

  TEST_CASE("a tool has its own uid, no capability and no way to new privileges") {
    if (getuid() != 0) {
      return;
    }
    ProcessTable::Options options = Harness::Defaults();
    options.defaults.user = {.uid = 64999, .gid = 64998};
    Harness harness(options);
    const Outcome outcome = harness.Run(
        Shell("id -u; id -g; id -G; grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status;"
              "echo again >/dev/stderr"));
    CHECK(outcome.out ==
          "64999\n64998\n64998\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
          "CapEff:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n");
    // The pipe belongs to the tool, so that it can be opened again by its name.
    CHECK(outcome.err == "again\n");
  }

  TEST_CASE("input arrives, and its end too") {
    Harness harness;
    v1::CommandSpec spec = Program({"cat"});
    spec.set_stdin(true);
    auto process = *harness.Start(spec);
    const std::string line(300'000, 'x');
    CHECK(Send(*process, Typed(line)).ok());
    CHECK(Send(*process, Typed("end\n")).ok());
    v1::ProcessInput close;
    close.mutable_close_stdin();
    CHECK(Send(*process, close).ok());
    CHECK(absl::IsFailedPrecondition(Send(*process, Typed("more"))));
    const Outcome outcome = std::make_shared<Collector>()->Read(process);
    CHECK(outcome.out.size() + outcome.missed == line.size() + 4);
    CHECK(outcome.exit.code() == 0);
  }

  TEST_CASE("input that is not read is refused at a megabyte and held back in a stream") {
    Harness harness;
    v1::CommandSpec spec = Program({"sleep", "30"});
    spec.set_stdin(true);
    auto process = *harness.Start(spec);
    CHECK(Send(*process, Typed(std::string(900'000, 'x'))).ok());
    CHECK(absl::IsResourceExhausted(Send(*process, Typed(std::string(500'000, 'x')))));
    process->Send(Typed(std::string(500'000, 'x')), false, [](const absl::Status&) {});
    CHECK_FALSE(process->InputRoom([] {}));
    v1::ProcessInput stop;
    stop.mutable_stop();
    process->Send(stop, true, [](const absl::Status&) {});
    CHECK(std::make_shared<Collector>()->Read(process).exit.stopped());
  }

  TEST_CASE("a terminal has its size, echoes, and turns Ctrl-C into a signal") {
    Harness harness;
    v1::CommandSpec spec = Shell("stty size; read line; echo got $line; sleep 30");
    spec.mutable_terminal()->set_rows(31);
    spec.mutable_terminal()->set_columns(101);
    auto process = *harness.Start(spec);
    CHECK(Send(*process, Typed("hello\n")).ok());
    std::thread typist([&process] {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      CHECK(Send(*process, Typed("\x03")).ok());
    });
    const Outcome outcome = std::make_shared<Collector>()->Read(process);
    typist.join();
    CHECK(outcome.out.find("31 101\r\n") != std::string::npos);
    CHECK(outcome.out.find("got hello\r\n") != std::string::npos);
    CHECK(outcome.exit.signal() == SIGINT);
  }

  TEST_CASE("a signal reaches the group, an impossible one is refused") {
    Harness harness;
    auto process = *harness.Start(
        Shell("trap 'echo caught; exit 3' USR1; while :; do sleep 0.05; done"));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    v1::ProcessInput input;
    input.set_signal(99);
    CHECK(absl::IsInvalidArgument(Send(*process, input)));
    input.set_signal(SIGUSR1);
    CHECK(Send(*process, input).ok());
    const Outcome outcome = std::make_shared<Collector>()->Read(process);
    CHECK((outcome.exit.code() == 3 || outcome.exit.signal() == SIGUSR1));
  }

  TEST_CASE("all output arrives, in order, to a reader that reads") {
    Harness harness;
    const Outcome outcome = harness.Run(Shell("seq 1 2000000"));
    CHECK(outcome.missed == 0);
    CHECK(outcome.out.size() == 14'888'896);
    CHECK(outcome.out.ends_with("\n1999999\n2000000\n"));
    CHECK(outcome.exit.output_bytes() == 14'888'896);
  }

  TEST_CASE("without a reader the newest output is kept and the rest told as a gap") {
    Harness harness;
    auto process = *harness.Start(Shell("seq 1 2000000"));
    while (!process->Info().has_exit()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    const Outcome outcome = std::make_shared<Collector>()->Read(process);
    CHECK(outcome.missed > 14'000'000);
    CHECK(outcome.out.size() + outcome.missed == 14'888'896);
    CHECK(outcome.out.ends_with("\n2000000\n"));
    CHECK(process->output_cost() <= (256u << 10) + (256u << 10));
  }

  TEST_CASE("a command that must not lose output waits for its reader") {
    Harness harness;
    v1::CommandSpec spec = Shell("seq 1 2000000");
    spec.set_overflow(v1::OVERFLOW_BLOCK);
    auto process = *harness.Start(spec);
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    CHECK_FALSE(process->Info().has_exit());
    const Outcome outcome = std::make_shared<Collector>()->Read(process);
    CHECK(outcome.missed == 0);
    CHECK(outcome.out.size() == 14'888'896);
  }

  TEST_CASE("a second reader takes over, and continues at its offset") {
    Harness harness;
    auto process = *harness.Start(Shell("echo one; sleep 0.5; echo two"));
    auto first = std::make_shared<Collector>();
    absl::Status first_status;
    std::thread reader(
        [&] { first_status = first->Read(process, 0, std::chrono::seconds(10)).status; });
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    const Outcome outcome = std::make_shared<Collector>()->Read(process, 4);
    reader.join();
    CHECK(absl::IsAborted(first_status));
    CHECK(outcome.out == "two\n");
  }

  TEST_CASE("a thousand commands in a row: no wrong code, no descriptor left") {
    Harness harness;
    harness.Run(Program({"true"}));
    const size_t before = OpenDescriptors();
    for (int i = 0; i < 1000; ++i) {
      const Outcome outcome = harness.Run(Shell("echo " + std::to_string(i) + "; exit " +
                                                std::to_string(i % 256)));
      REQUIRE(outcome.exit.has_code());
      REQUIRE(outcome.exit.code() == i % 256);
      REQUIRE(outcome.out == std::to_string(i) + "\n");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    CHECK(harness.table().List().size() == 256);
    CHECK(OpenDescriptors() <= before + 2);
  }

  TEST_CASE("a hundred at once: none lost or mixed up") {
    Harness harness;
    std::vector<std::shared_ptr<Process>> processes;
    for (int i = 0; i < 100; ++i) {
      processes.push_back(*harness.Start(Shell("sleep 0.2; seq " + std::to_string(i) + " " +
                                               std::to_string(i + 500) + "; exit " +
                                               std::to_string(i))));
    }
    for (int i = 0; i < 100; ++i) {
      const Outcome outcome = std::make_shared<Collector>()->Read(processes[i]);
      CHECK(outcome.exit.code() == i);
      CHECK(outcome.out.starts_with(std::to_string(i) + "\n"));
      CHECK(outcome.out.ends_with("\n" + std::to_string(i + 500) + "\n"));
    }
  }

  TEST_CASE("too many commands are refused with the limit") {
    ProcessTable::Options options = Harness::Defaults();
    options.max_running = 3;
    Harness harness(options);
    std::vector<std::shared_ptr<Process>> processes;
    for (int i = 0; i < 3; ++i) {
      processes.push_back(*harness.Start(Program({"sleep", "0.3"})));
    }
    CHECK(absl::IsResourceExhausted(harness.Start(Program({"true"})).status()));
    for (const auto& process : processes) {
      std::make_shared<Collector>()->Read(process);
    }
    CHECK(harness.Run(Program({"true"})).exit.has_code());
  }
}

}  // namespace creel::shim
