// The whole shim as a process, spoken to as the supervisor does.

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/agent-shim/api/shim_client.h"

namespace creel::shim {
namespace {

struct Ran {
  std::string out;
  v1::Exit exit;
  uint64_t missed = 0;
  bool started = false;
  grpc::Status status;
};

using Stream = grpc::ClientReaderWriter<v1::RunRequest, v1::RunResponse>;

v1::RunRequest StartShell(const std::string& id, const std::string& line) {
  v1::RunRequest request;
  request.mutable_start()->set_process_id(id);
  request.mutable_start()->mutable_spec()->set_shell(line);
  return request;
}

v1::RunRequest Attach(const std::string& id, uint64_t offset) {
  v1::RunRequest request;
  request.mutable_attach()->set_process_id(id);
  request.mutable_attach()->set_offset(offset);
  return request;
}

Ran ReadAll(Stream& stream) {
  Ran ran;
  v1::RunResponse response;
  while (stream.Read(&response)) {
    const v1::ProcessEvent& event = response.event();
    ran.started = ran.started || event.has_started();
    ran.out += event.output().data();
    ran.missed += event.gap().to() - event.gap().from();
    if (event.has_exit()) {
      ran.exit = event.exit();
    }
  }
  ran.status = stream.Finish();
  return ran;
}

Ran Run(ShimClient& client, const v1::RunRequest& request) {
  grpc::ClientContext context;
  auto stream = client.stub().Run(&context);
  stream->Write(request);
  return ReadAll(*stream);
}

}  // namespace

TEST_SUITE("creel-shim") {
  TEST_CASE("before Hello every call is refused, after it they are served") {
    ShimClient client(CREEL_SHIM);
    CHECK(Run(client, StartShell("a", "true")).status.error_code() ==
          grpc::StatusCode::UNAUTHENTICATED);
    {
      grpc::ClientContext context;
      v1::StatResponse response;
      CHECK(client.stub().Stat(&context, {}, &response).error_code() ==
            grpc::StatusCode::UNAUTHENTICATED);
    }
    {
      grpc::ClientContext context;
      v1::ReadFileResponse response;
      auto reader = client.stub().ReadFile(&context, {});
      CHECK_FALSE(reader->Read(&response));
      CHECK(reader->Finish().error_code() == grpc::StatusCode::UNAUTHENTICATED);
    }
    v1::HelloResponse hello;
    CHECK(client.Hello(false, &hello).error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    REQUIRE(client.Hello(true, &hello).ok());
    CHECK(client.Proves(hello));
    CHECK(client.Hello(true, &hello).error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    const Ran ran = Run(client, StartShell("a", "echo hi; exit 4"));
    CHECK(ran.status.ok());
    CHECK(ran.started);
    CHECK(ran.out == "hi\n");
    CHECK(ran.exit.code() == 4);
    grpc::ClientContext context;
    v1::StatRequest stat;
    stat.mutable_args()->set_path("/tmp");
    v1::StatResponse response;
    CHECK(client.stub().Stat(&context, stat, &response).ok());
  }

  TEST_CASE("after a lost link the shim calls again, proves itself, and nothing kept is lost") {
    ShimClient client(CREEL_SHIM);
    v1::HelloResponse hello;
    REQUIRE(client.Hello(true, &hello).ok());
    {
      grpc::ClientContext context;
      auto stream = client.stub().Run(&context);
      stream->Write(StartShell("long", "echo one; sleep 1; echo two; exit 9"));
      v1::RunResponse response;
      CHECK(stream->Read(&response));
      CHECK(response.event().has_started());
      client.Reconnect();
    }
    CHECK(Run(client, Attach("long", 0)).status.error_code() ==
          grpc::StatusCode::UNAUTHENTICATED);
    REQUIRE(client.Hello(false, &hello).ok());
    CHECK(client.Proves(hello));
    CHECK(hello.binary_sha256().size() == 32);
    const Ran ran = Run(client, Attach("long", 0));
    CHECK(ran.out == "one\ntwo\n");
    CHECK(ran.exit.code() == 9);
    CHECK(Run(client, Attach("long", 4)).out == "two\n");
    CHECK(Run(client, Attach("other", 0)).status.error_code() == grpc::StatusCode::NOT_FOUND);
  }

  TEST_CASE("cancelling detaches and leaves the command running") {
    ShimClient client(CREEL_SHIM);
    v1::HelloResponse hello;
    REQUIRE(client.Hello(true, &hello).ok());
    {
      grpc::ClientContext context;
      auto stream = client.stub().Run(&context);
      stream->Write(StartShell("kept", "sleep 0.5; echo done"));
      v1::RunResponse response;
      CHECK(stream->Read(&response));
      context.TryCancel();
      CHECK(ReadAll(*stream).status.error_code() == grpc::StatusCode::CANCELLED);
    }
    CHECK(Run(client, Attach("kept", 0)).out == "done\n");
  }

  TEST_CASE("input, stop and list") {
    ShimClient client(CREEL_SHIM);
    v1::HelloResponse hello;
    REQUIRE(client.Hello(true, &hello).ok());
    grpc::ClientContext context;
    auto stream = client.stub().Run(&context);
    v1::RunRequest start = StartShell("cat", "cat");
    start.mutable_start()->mutable_spec()->set_stdin(true);
    stream->Write(start);
    std::string sent;
    for (int i = 0; i < 40; ++i) {
      v1::RunRequest input;
      input.mutable_input()->set_stdin(std::string(200'000, static_cast<char>('a' + i % 26)));
      sent += input.input().stdin();
      stream->Write(input);
    }
    v1::RunRequest close;
    close.mutable_input()->mutable_close_stdin();
    stream->Write(close);
    const Ran ran = ReadAll(*stream);
    CHECK(ran.missed == 0);
    CHECK(ran.out == sent);

    grpc::ClientContext run_context;
    auto sleeper = client.stub().Run(&run_context);
    sleeper->Write(StartShell("sleeper", "sleep 100"));
    v1::RunResponse response;
    CHECK(sleeper->Read(&response));
    v1::SendInputRequest stop;
    stop.set_process_id("sleeper");
    stop.mutable_input()->mutable_stop();
    v1::SendInputResponse stopped;
    grpc::ClientContext stop_context;
    CHECK(client.stub().SendInput(&stop_context, stop, &stopped).ok());
    const Ran slept = ReadAll(*sleeper);
    CHECK(slept.exit.stopped());
    CHECK(slept.exit.kill_step() == v1::KILL_STEP_TERM);
    grpc::ClientContext again_context;
    CHECK(client.stub().SendInput(&again_context, stop, &stopped).error_code() ==
          grpc::StatusCode::FAILED_PRECONDITION);
    grpc::ClientContext list_context;
    v1::ListProcessesResponse list;
    CHECK(client.stub().ListProcesses(&list_context, {}, &list).ok());
    CHECK(list.processes_size() == 2);
  }

  TEST_CASE("a thousand in a row and a hundred at once leave nothing behind") {
    ShimClient client(CREEL_SHIM);
    v1::HelloResponse hello;
    REQUIRE(client.Hello(true, &hello).ok());
    const auto status = [&client] {
      grpc::ClientContext context;
      v1::GetStatusResponse response;
      CHECK(client.stub().GetStatus(&context, {}, &response).ok());
      return response;
    };
    Run(client, StartShell("warm", "true"));
    const v1::GetStatusResponse before = status();
    for (int i = 0; i < 1000; ++i) {
      const Ran ran = Run(client, StartShell("r" + std::to_string(i),
                                             "echo " + std::to_string(i) + "; exit " +
                                                 std::to_string(i % 200)));
      REQUIRE(ran.out == std::to_string(i) + "\n");
      REQUIRE(ran.exit.code() == i % 200);
    }
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    std::vector<std::unique_ptr<Stream>> streams;
    for (int i = 0; i < 100; ++i) {
      contexts.push_back(std::make_unique<grpc::ClientContext>());
      streams.push_back(client.stub().Run(contexts.back().get()));
      streams.back()->Write(
          StartShell("c" + std::to_string(i), "seq " + std::to_string(i) + " 20000"));
    }
    std::vector<std::thread> readers;
    std::vector<Ran> results(100);
    for (int i = 0; i < 100; ++i) {
      readers.emplace_back([&, i] { results[i] = ReadAll(*streams[i]); });
    }
    for (int i = 0; i < 100; ++i) {
      readers[i].join();
      CHECK(results[i].missed == 0);
      CHECK(results[i].out.starts_with(std::to_string(i) + "\n"));
      CHECK(results[i].out.ends_with("\n20000\n"));
      CHECK(results[i].exit.has_code());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    const v1::GetStatusResponse after = status();
    CHECK(after.open_files() <= before.open_files() + 4);
    CHECK(after.threads() <= before.threads() + 4);
  }
}

}  // namespace creel::shim
