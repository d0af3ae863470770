#include "supervisor/api/process_call.h"

#include <doctest/doctest.h>
#include <signal.h>

#include <chrono>
#include <string>
#include <thread>

#include "tests/supervisor/api/gateway_house.h"

using namespace creel;  // NOLINT: a test of one room
using gateway::v1::AttachProcessRequest;
using gateway::v1::AttachProcessResponse;
using gateway::v1::ExecRequest;
using gateway::v1::ExecResponse;
using std::chrono::steady_clock;

namespace {

struct House : GatewayHouse<LocalShim> {
  explicit House(const std::string& root) : GatewayHouse(root) {}
};

ExecRequest Start(std::vector<std::string> argv) {
  ExecRequest request;
  request.mutable_start()->mutable_context()->set_session("s");
  for (std::string& word : argv) {
    request.mutable_start()->mutable_spec()->add_argv(std::move(word));
  }
  return request;
}

ExecRequest Shell(const std::string& line) {
  ExecRequest request;
  request.mutable_start()->mutable_context()->set_session("s");
  request.mutable_start()->mutable_spec()->set_shell(line);
  return request;
}

struct Ran {
  grpc::Status status;
  std::string out;
  std::string err;
  shim::v1::ProcessInfo started;
  shim::v1::Exit exit;
  uint64_t missed = 0;
  int events = 0;
};

template <class Stream>
Ran ReadAll(Stream& stream, std::chrono::microseconds pause = {}) {
  Ran ran;
  ExecResponse response;
  uint64_t next = 0;
  while (stream.Read(&response)) {
    ++ran.events;
    const auto& event = response.event();
    if (event.has_started()) {
      CHECK(ran.events == 1);
      ran.started = event.started();
    } else if (event.has_output()) {
      CHECK(event.output().offset() == next);
      next += event.output().data().size();
      (event.output().stream() == shim::v1::OUTPUT_STREAM_STDOUT ? ran.out : ran.err) +=
          event.output().data();
    } else if (event.has_gap()) {
      CHECK(event.gap().from() == next);
      ran.missed += event.gap().to() - event.gap().from();
      next = event.gap().to();
    } else if (event.has_exit()) {
      ran.exit = event.exit();
    }
    if (pause.count() != 0) {
      std::this_thread::sleep_for(pause);
    }
  }
  ran.status = stream.Finish();
  return ran;
}

Ran Exec(House& house, const ExecRequest& request) {
  grpc::ClientContext context;
  auto stream = house.stub->Exec(&context);
  stream->Write(request);
  return ReadAll(*stream);
}

}  // namespace

TEST_SUITE("Exec") {
  TEST_CASE("a command's output and exit status arrive, and the gate hears of both") {
    ScratchFolder folder;
    House house(folder.path());
    const Ran ran = Exec(house, Shell("echo out; echo err >&2; exit 3"));
    CHECK(ran.status.ok());
    CHECK(ran.out == "out\n");
    CHECK(ran.err == "err\n");
    CHECK(ran.exit.code() == 3);
    CHECK(ran.exit.output_bytes() == 8);
    REQUIRE(Eventually([&] { return house.gate.outcomes().size() == 1; }));
    CHECK(house.gate.outcomes()[0] == "exit 3");
    CHECK(house.gate.calls()[0].tool == "exec");
    CHECK(house.gate.calls()[0].summary == "echo out; echo err >&2; exit 3");
  }

  TEST_CASE("a command that cannot be started is an exit, not an error") {
    ScratchFolder folder;
    House house(folder.path());
    const Ran ran = Exec(house, Start({"no-such-program"}));
    CHECK(ran.status.ok());
    CHECK(ran.exit.start_failure().error() == ENOENT);
  }

  TEST_CASE("input that cannot be right is refused with what to do") {
    ScratchFolder folder;
    House house(folder.path());
    struct Row {
      const char* name;
      ExecRequest request;
      const char* says;
    };
    ExecRequest both = Shell("true");
    both.mutable_start()->mutable_spec()->add_argv("true");
    ExecRequest nul = Start({"echo", std::string("a\0b", 3)});
    ExecRequest large = Start({"echo", std::string(10u << 20 >> 2, 'x')});
    ExecRequest many = Start({"echo"});
    for (int i = 0; i < 30; ++i) {
      many.mutable_start()->mutable_spec()->add_argv(std::string(100'000, 'x'));
    }
    ExecRequest name = Start({"true"});
    (*name.mutable_start()->mutable_spec()->mutable_env())["A=B"] = "c";
    ExecRequest id = Start({"true"});
    id.mutable_start()->set_process_id("../x");
    ExecRequest timeout = Start({"true"});
    timeout.mutable_start()->mutable_spec()->mutable_timeout()->set_seconds(-1);
    ExecRequest terminal = Start({"true"});
    terminal.mutable_start()->mutable_spec()->mutable_terminal()->set_rows(1u << 30);
    ExecRequest input;
    input.mutable_input()->set_stdin("x");
    const Row rows[] = {
        {"no message", ExecRequest(), "must hold `start`"},
        {"input first", input, "must hold `start`"},
        {"empty", Start({}), "the command is empty"},
        {"empty program", Start({"", "x"}), "names the program"},
        {"both", both, "both `argv` and `shell`"},
        {"NUL", nul, "argv[1] holds a NUL byte"},
        {"large", large, "send it as stdin"},
        {"many", many, "in all"},
        {"variable", name, "no name for a variable"},
        {"id", id, "`process_id`"},
        {"timeout", timeout, "`timeout`"},
        {"terminal", terminal, "terminal"},
    };
    for (const Row& row : rows) {
      CAPTURE(row.name);
      const Ran ran = Exec(house, row.request);
      CHECK(ran.status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
      CAPTURE(ran.status.error_message());
      CHECK(ran.status.error_message().find(row.says) != std::string::npos);
      CHECK(ran.events == 0);
    }
    CHECK(house.gate.calls().empty());
  }

  TEST_CASE("a refusal of the gate reaches the caller as it is, and nothing runs") {
    ScratchFolder folder;
    House house(folder.path());
    house.gate.Refuse(absl::PermissionDeniedError("rule 7: strangers may not"));
    const Ran ran = Exec(house, Shell("touch ran"));
    CHECK(ran.status.error_code() == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(ran.status.error_message() == "rule 7: strangers may not");
    CHECK(!std::filesystem::exists(folder.path() + "/ran"));
  }

  TEST_CASE("input goes in, in order") {
    ScratchFolder folder;
    House house(folder.path());
    grpc::ClientContext context;
    auto stream = house.stub->Exec(&context);
    ExecRequest request = Shell("cat");
    request.mutable_start()->mutable_spec()->set_stdin(true);
    stream->Write(request);
    std::string sent;
    std::thread writer([&] {
      for (int i = 0; i < 40; ++i) {
        const std::string piece(256u << 10, static_cast<char>('a' + i % 26));
        sent += piece;
        ExecRequest input;
        input.mutable_input()->set_stdin(piece);
        stream->Write(input);
      }
      ExecRequest end;
      end.mutable_input()->mutable_close_stdin();
      stream->Write(end);
    });
    const Ran ran = ReadAll(*stream);
    writer.join();
    CHECK(ran.status.ok());
    CHECK(ran.missed + ran.out.size() == sent.size());
    CHECK(ran.exit.code() == 0);
  }

  TEST_CASE("a command does not outlive a caller that went away") {
    ScratchFolder folder;
    House house(folder.path());
    pid_t pid = 0;
    {
      grpc::ClientContext context;
      auto stream = house.stub->Exec(&context);
      stream->Write(Start({"sleep", "100"}));
      ExecResponse response;
      REQUIRE(stream->Read(&response));
      pid = response.event().started().pid();
      context.TryCancel();
      CHECK(stream->Finish().error_code() == grpc::StatusCode::CANCELLED);
    }
    REQUIRE(pid > 0);
    CHECK(Eventually([&] { return kill(pid, 0) != 0; }));
    CHECK(Eventually([&] { return house.gate.outcomes().size() == 1; }));
    CHECK(house.gate.outcomes()[0] == "caller went away");
    CHECK(Eventually([&] { return house.gate.held() == 0; }));
  }

  TEST_CASE("a detached command outlives its caller and can be attached to from any offset") {
    ScratchFolder folder;
    House house(folder.path());
    {
      grpc::ClientContext context;
      auto stream = house.stub->Exec(&context);
      ExecRequest request = Shell("echo before; read go; echo after; exit 7");
      request.mutable_start()->set_detach(true);
      request.mutable_start()->set_process_id("job");
      request.mutable_start()->mutable_spec()->set_stdin(true);
      stream->Write(request);
      ExecResponse response;
      while (stream->Read(&response) && !response.event().has_output()) {
      }
      context.TryCancel();
      stream->Finish();
    }
    grpc::ClientContext context;
    auto stream = house.stub->AttachProcess(&context);
    AttachProcessRequest request;
    request.mutable_attach()->mutable_context()->set_session("s");
    request.mutable_attach()->set_process_id("job");
    request.mutable_attach()->set_offset(4);
    stream->Write(request);
    AttachProcessResponse response;
    std::string out;
    REQUIRE(stream->Read(&response));
    CHECK(response.event().started().process_id() == "job");
    request.mutable_input()->set_stdin("go\n");
    stream->Write(request);
    while (stream->Read(&response) && !response.event().has_exit()) {
      out += response.event().output().data();
    }
    CHECK(out == "re\nafter\n");
    CHECK(response.event().exit().code() == 7);
    CHECK(stream->Finish().ok());
  }

  TEST_CASE("attaching to what is not there says so") {
    ScratchFolder folder;
    House house(folder.path());
    grpc::ClientContext context;
    auto stream = house.stub->AttachProcess(&context);
    AttachProcessRequest request;
    request.mutable_attach()->set_process_id("nobody");
    stream->Write(request);
    AttachProcessResponse response;
    CHECK(!stream->Read(&response));
    CHECK(stream->Finish().error_code() == grpc::StatusCode::NOT_FOUND);
  }

  TEST_CASE("a sandbox that is lost ends the call within a second, with the reason") {
    ScratchFolder folder;
    House house(folder.path());
    bool with_last_words = false;
    SUBCASE("and its command tells how it ended") { with_last_words = true; }
    SUBCASE("and nothing more comes of its command") {}
    grpc::ClientContext context;
    auto stream = house.stub->Exec(&context);
    stream->Write(Start({"sleep", "3"}));
    ExecResponse response;
    REQUIRE(stream->Read(&response));
    const auto before = steady_clock::now();
    house.gate.Lose(absl::UnavailableError("container ended with exit code 137 (out of memory)"));
    if (with_last_words) {
      house.sandbox->ContainerGone("container ended with exit code 137 (out of memory)");
    }
    const Ran ran = ReadAll(*stream);
    CHECK(steady_clock::now() - before < std::chrono::seconds(1));
    CHECK(ran.status.error_code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(ran.status.error_message() == "container ended with exit code 137 (out of memory)");
    CHECK(ran.exit.how_case() ==
          (with_last_words ? shim::v1::Exit::kLost : shim::v1::Exit::HOW_NOT_SET));
  }

  TEST_CASE("a frozen session's command is left as it stands") {
    ScratchFolder folder;
    House house(folder.path());
    grpc::ClientContext context;
    auto stream = house.stub->Exec(&context);
    stream->Write(Start({"sleep", "2"}));
    ExecResponse response;
    REQUIRE(stream->Read(&response));
    const pid_t pid = response.event().started().pid();
    house.gate.Lose(absl::FailedPreconditionError("the session is frozen: odd mails"));
    const Ran ran = ReadAll(*stream);
    CHECK(ran.status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(kill(pid, 0) == 0);
    kill(pid, SIGKILL);
  }

  TEST_CASE("a slow reader that must not lose anything gets it all") {
    ScratchFolder folder;
    House house(folder.path());
    grpc::ClientContext context;
    auto stream = house.stub->Exec(&context);
    ExecRequest request = Shell("head -c 20000000 /dev/zero");
    request.mutable_start()->mutable_spec()->set_overflow(shim::v1::OVERFLOW_BLOCK);
    stream->Write(request);
    const Ran ran = ReadAll(*stream, std::chrono::milliseconds(1));
    CHECK(ran.status.ok());
    CHECK(ran.missed == 0);
    CHECK(ran.out.size() == 20'000'000);
  }

  TEST_CASE("a reader that does not read holds up neither the command nor another") {
    ScratchFolder folder;
    House house(folder.path());
    grpc::ClientContext context;
    auto stream = house.stub->Exec(&context);
    ExecRequest request = Shell("head -c 60000000 /dev/zero; touch done");
    stream->Write(request);
    CHECK(Eventually([&] { return std::filesystem::exists(folder.path() + "/done"); },
                     std::chrono::seconds(20)));
    CHECK(Exec(house, Shell("echo here")).out == "here\n");
    const Ran ran = ReadAll(*stream);
    CHECK(ran.status.ok());
    CHECK(ran.out.size() + ran.missed == 60'000'000);
    CHECK(ran.missed > 0);
    CHECK(ran.exit.code() == 0);
  }

  TEST_CASE("a hundred commands at once keep apart") {
    ScratchFolder folder;
    House house(folder.path());
    std::vector<std::thread> threads;
    std::atomic<int> right = 0;
    for (int i = 0; i < 100; ++i) {
      threads.emplace_back([&, i] {
        const Ran ran =
            Exec(house, Shell("echo " + std::to_string(i) + "; exit " + std::to_string(i)));
        right += ran.status.ok() && ran.out == std::to_string(i) + "\n" && ran.exit.code() == i;
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(right == 100);
  }
}

TEST_SUITE("ListProcesses and SendInput") {
  TEST_CASE("a process is listed, takes input, and is stopped") {
    ScratchFolder folder;
    House house(folder.path());
    grpc::ClientContext context;
    auto stream = house.stub->Exec(&context);
    ExecRequest request = Shell("read x; echo got $x; sleep 100");
    request.mutable_start()->set_process_id("p");
    request.mutable_start()->mutable_spec()->set_stdin(true);
    stream->Write(request);
    ExecResponse response;
    REQUIRE(stream->Read(&response));

    gateway::v1::ListProcessesRequest list;
    list.mutable_context()->set_session("s");
    gateway::v1::ListProcessesResponse listed;
    {
      grpc::ClientContext one;
      REQUIRE(house.stub->ListProcesses(&one, list, &listed).ok());
    }
    REQUIRE(listed.processes_size() == 1);
    CHECK(listed.processes(0).process_id() == "p");

    gateway::v1::SendInputRequest input;
    input.mutable_context()->set_session("s");
    input.set_process_id("p");
    input.mutable_input()->set_stdin("it\n");
    gateway::v1::SendInputResponse sent;
    {
      grpc::ClientContext one;
      CHECK(house.stub->SendInput(&one, input, &sent).ok());
    }
    REQUIRE(stream->Read(&response));
    CHECK(response.event().output().data() == "got it\n");
    input.mutable_input()->mutable_stop();
    {
      grpc::ClientContext one;
      CHECK(house.stub->SendInput(&one, input, &sent).ok());
    }
    const Ran ran = ReadAll(*stream);
    CHECK(ran.exit.signal() == SIGTERM);
    {
      grpc::ClientContext one;
      CHECK(house.stub->SendInput(&one, input, &sent).error_code() ==
            grpc::StatusCode::FAILED_PRECONDITION);
    }
    input.set_process_id("q");
    {
      grpc::ClientContext one;
      CHECK(house.stub->SendInput(&one, input, &sent).error_code() == grpc::StatusCode::NOT_FOUND);
    }
  }
}
