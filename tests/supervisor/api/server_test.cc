#include "supervisor/api/server.h"

#include <doctest/doctest.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "creel/operator/v1/operator.grpc.pb.h"
#include "tests/supervisor/api/doors_house.h"

using namespace creel;  // NOLINT: a test of one room
using std::chrono::steady_clock;

namespace {

std::shared_ptr<grpc::Channel> Dial(const std::string& socket) {
  return grpc::CreateChannel("unix:" + socket, grpc::InsecureChannelCredentials());
}

size_t Threads() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

// One call without its generated stub; the answer's bytes.
grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::string& request, std::string* response) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  grpc::CompletionQueue queue;
  const grpc::Slice slice(request);
  const grpc::ByteBuffer in(&slice, 1);
  const auto call = stub.PrepareUnaryCall(&context, method, in, &queue);
  call->StartCall();
  grpc::ByteBuffer out;
  grpc::Status status;
  call->Finish(&out, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  std::vector<grpc::Slice> slices;
  if (status.ok() && out.Dump(&slices).ok()) {
    for (const grpc::Slice& piece : slices) {
      response->append(reinterpret_cast<const char*>(piece.begin()), piece.size());
    }
  }
  return status;
}

}  // namespace

TEST_SUITE("ApiServer") {
  TEST_CASE("each door serves its own service, and health") {
    DoorsHouse house;
    const auto gateway = Dial(house.gateway_socket());
    const auto operators = Dial(house.operator_socket());
    {
      grpc::ClientContext context;
      gateway::v1::ListSessionsResponse response;
      CHECK(gateway::v1::Gateway::NewStub(gateway)->ListSessions(&context, {}, &response).ok());
    }
    {
      grpc::ClientContext context;
      operator_::v1::GetInfoResponse response;
      CHECK(operator_::v1::Operator::NewStub(gateway)
                ->GetInfo(&context, {}, &response)
                .error_code() == grpc::StatusCode::UNIMPLEMENTED);
    }
    {
      grpc::ClientContext context;
      operator_::v1::GetInfoResponse response;
      CHECK(operator_::v1::Operator::NewStub(operators)->GetInfo(&context, {}, &response).ok());
    }
    for (const auto& channel : {gateway, operators}) {
      std::string answer;
      CHECK(RawCall(channel, "/grpc.health.v1.Health/Check", "", &answer).ok());
      CHECK(answer == "\x08\x01");  // SERVING
    }
  }

  TEST_CASE("reflection lists the services, and however many ask, few threads serve") {
    DoorsHouse house;
    const auto channel = Dial(house.gateway_socket());
    grpc::GenericStub stub(channel);
    grpc::CompletionQueue queue;
    const size_t before = Threads();
    struct Ask {
      grpc::ClientContext context;
      std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
      grpc::ByteBuffer answer;
    };
    std::vector<std::unique_ptr<Ask>> asks;
    // ServerReflectionRequest{list_services: "*"}
    const grpc::Slice slice(std::string("\x3a\x01*"));
    const grpc::ByteBuffer request(&slice, 1);
    void* tag = nullptr;
    bool ok = false;
    int answered = 0;
    for (int i = 0; i < 20; ++i) {
      Ask& ask = *asks.emplace_back(std::make_unique<Ask>());
      ask.context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(3));
      ask.stream = stub.PrepareCall(
          &ask.context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
      ask.stream->StartCall(nullptr);
      queue.Next(&tag, &ok);
      ask.stream->Write(request, nullptr);
      queue.Next(&tag, &ok);
      ask.stream->Read(&ask.answer, nullptr);
      queue.Next(&tag, &ok);
      answered += ok ? 1 : 0;
    }
    CHECK(answered >= 1);
    CHECK(Threads() < before + 12);
    std::vector<grpc::Slice> slices;
    REQUIRE(asks[0]->answer.Dump(&slices).ok());
    std::string text;
    for (const grpc::Slice& piece : slices) {
      text.append(reinterpret_cast<const char*>(piece.begin()), piece.size());
    }
    CHECK(text.find("creel.gateway.v1.Gateway") != std::string::npos);
    CHECK(text.find("creel.operator.v1.Operator") == std::string::npos);
    asks.clear();
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) {
    }
  }

  TEST_CASE("two hundred streams stand on few threads of the server's") {
    DoorsHouse house;
    const auto stub = gateway::v1::Gateway::NewStub(Dial(house.gateway_socket()));
    gateway::v1::ExecRequest start;
    start.mutable_start()->mutable_context()->set_session("s");
    start.mutable_start()->mutable_spec()->set_shell("sleep 100");
    start.mutable_start()->set_process_id("one");
    grpc::ClientContext first;
    const auto exec = stub->Exec(&first);
    exec->Write(start);
    gateway::v1::ExecResponse response;
    REQUIRE(exec->Read(&response));
    const size_t before = Threads();
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    using Stream = grpc::ClientReaderWriter<gateway::v1::AttachProcessRequest,
                                            gateway::v1::AttachProcessResponse>;
    std::vector<std::unique_ptr<Stream>> streams;
    gateway::v1::AttachProcessRequest attach;
    attach.mutable_attach()->mutable_context()->set_session("s");
    attach.mutable_attach()->set_process_id("one");
    gateway::v1::AttachProcessResponse attached;
    for (int i = 0; i < 200; ++i) {
      contexts.push_back(std::make_unique<grpc::ClientContext>());
      streams.push_back(stub->AttachProcess(contexts.back().get()));
      streams.back()->Write(attach);
      CHECK(streams.back()->Read(&attached));
    }
    // Nothing of the test makes threads meanwhile: one command runs, and these only wait.
    CHECK(Threads() < before + 16);
    first.TryCancel();
    exec->Finish();
    for (auto& stream : streams) {
      while (stream->Read(&attached)) {
      }
      CHECK(stream->Finish().ok());
    }
  }

  TEST_CASE("a socket has the mode it was given, and is gone after the end") {
    DoorsHouse house;
    struct stat info {};
    REQUIRE(stat(house.gateway_socket().c_str(), &info) == 0);
    CHECK((info.st_mode & 07777) == 0660);
    house.server.reset();
    CHECK(stat(house.gateway_socket().c_str(), &info) != 0);
    CHECK(stat(house.operator_socket().c_str(), &info) != 0);
  }

  TEST_CASE("a stop waits for calls until its deadline, and no longer") {
    DoorsHouse house;
    const auto stub = gateway::v1::Gateway::NewStub(Dial(house.gateway_socket()));
    grpc::ClientContext context;
    const auto exec = stub->Exec(&context);
    gateway::v1::ExecRequest start;
    start.mutable_start()->mutable_context()->set_session("s");
    start.mutable_start()->mutable_spec()->set_shell("sleep 100");
    exec->Write(start);
    gateway::v1::ExecResponse response;
    REQUIRE(exec->Read(&response));
    const auto before = steady_clock::now();
    house.server->Stop(After(std::chrono::milliseconds(300)));
    const auto took = steady_clock::now() - before;
    CHECK(took >= std::chrono::milliseconds(250));
    CHECK(took < std::chrono::seconds(3));
    CHECK(!exec->Read(&response));
    CHECK(!exec->Finish().ok());
  }

  TEST_CASE("doors that cannot be are refused with what to do") {
    DoorsHouse house;
    struct Row {
      std::string path;
      std::string group;
      absl::StatusCode code;
      std::string says;
    };
    const Row rows[] = {
        {house.folder.path() + "/" + std::string(120, 'x'), "", absl::StatusCode::kInvalidArgument,
         "at most 107"},
        {"gateway.sock", "", absl::StatusCode::kInvalidArgument, "absolute"},
        {house.folder.path() + "/g.sock", "no-such-group", absl::StatusCode::kFailedPrecondition,
         "groupadd"},
        {house.folder.path() + "/none/g.sock", "", absl::StatusCode::kNotFound, "none"},
    };
    for (const Row& row : rows) {
      CAPTURE(row.path);
      Config config = house.config;
      config.gateway.path = row.path;
      config.gateway.group = row.group;
      config.operator_door.path = house.folder.path() + "/o.sock";
      const auto server =
          ApiServer::Start({.sessions = house.sessions,
                            .gate = house.gate,
                            .engine = house.engine,
                            .links = *house.links,
                            .config = config,
                            .diagnose = [](bool) { return std::vector<Finding>(); }});
      CHECK(server.status().code() == row.code);
      CHECK(std::string(server.status().message()).find(row.says) != std::string::npos);
      CHECK(!std::filesystem::exists(house.folder.path() + "/o.sock"));
    }
  }
}
