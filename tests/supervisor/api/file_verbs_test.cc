#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "tests/supervisor/api/gateway_house.h"

using namespace creel;  // NOLINT: a test of one room
namespace g = gateway::v1;
namespace s = shim::v1;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

// Answers file calls from memory, and misbehaves as told.
class FileShim final : public s::Shim::Service {
 public:
  std::atomic<int> stat_code = 0;
  std::string stat_message;
  std::atomic<uint64_t> bytes_to_send = 0;  // ReadFile; all ones: never ends
  std::atomic<uint64_t> bytes_sent = 0;
  std::atomic<int> commits = 0;
  std::atomic<int> drops = 0;
  std::atomic<bool> hang = false;

  grpc::Status Stat(grpc::ServerContext* context, const s::StatRequest* request,
                    s::StatResponse* response) override {
    while (hang && !context->IsCancelled()) {
      std::this_thread::sleep_for(milliseconds(2));
    }
    if (stat_code != 0) {
      return {static_cast<grpc::StatusCode>(stat_code.load()), stat_message};
    }
    response->mutable_info()->set_path(request->args().path());
    return grpc::Status::OK;
  }

  grpc::Status ReadFile(grpc::ServerContext* /*context*/, const s::ReadFileRequest* request,
                        grpc::ServerWriter<s::ReadFileResponse>* writer) override {
    s::ReadFileResponse response;
    response.mutable_chunk()->mutable_info()->set_path(request->args().path());
    response.mutable_chunk()->set_data(std::string(1u << 20, 'f'));
    while (bytes_sent < bytes_to_send) {
      if (!writer->Write(response)) {
        ++drops;
        return grpc::Status::CANCELLED;
      }
      bytes_sent += response.chunk().data().size();
      response.mutable_chunk()->clear_info();
    }
    return grpc::Status::OK;
  }

  grpc::Status WriteFile(grpc::ServerContext* context, grpc::ServerReader<s::WriteFileRequest>* in,
                         s::WriteFileResponse* response) override {
    s::WriteFileRequest request;
    in->Read(&request);
    uint64_t bytes = 0;
    while (in->Read(&request)) {
      bytes += request.data().size();
      if (stat_code != 0) {
        return {static_cast<grpc::StatusCode>(stat_code.load()), stat_message};
      }
    }
    std::this_thread::sleep_for(milliseconds(10));
    ++(context->IsCancelled() ? drops : commits);
    response->mutable_result()->mutable_info()->set_size(bytes);
    return grpc::Status::OK;
  }

  grpc::Status EditFile(grpc::ServerContext*, const s::EditFileRequest* request,
                        s::EditFileResponse* response) override {
    response->mutable_result()->set_matches(request->args().old_text().size());
    return grpc::Status::OK;
  }
  grpc::Status ListDirectory(grpc::ServerContext*, const s::ListDirectoryRequest*,
                             grpc::ServerWriter<s::ListDirectoryResponse>* writer) override {
    for (int i = 0; i < 5; ++i) {
      s::ListDirectoryResponse response;
      for (int j = 0; j < 10; ++j) {
        response.mutable_batch()->add_entries()->set_path(std::to_string(i * 10 + j));
      }
      writer->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status MakeDirectory(grpc::ServerContext*, const s::MakeDirectoryRequest*,
                             s::MakeDirectoryResponse* response) override {
    response->set_created(true);
    return grpc::Status::OK;
  }
  grpc::Status Move(grpc::ServerContext*, const s::MoveRequest*, s::MoveResponse*) override {
    return grpc::Status::OK;
  }
  grpc::Status Copy(grpc::ServerContext*, const s::CopyRequest*,
                    s::CopyResponse* response) override {
    response->set_entries(3);
    response->set_bytes(4);
    return grpc::Status::OK;
  }
  grpc::Status Remove(grpc::ServerContext*, const s::RemoveRequest*,
                      s::RemoveResponse* response) override {
    response->set_entries(5);
    return grpc::Status::OK;
  }
  grpc::Status Grep(grpc::ServerContext*, const s::GrepRequest*,
                    grpc::ServerWriter<s::GrepResponse>* writer) override {
    s::GrepResponse response;
    response.mutable_batch()->add_matches()->set_line("here");
    writer->Write(response);
    return grpc::Status::OK;
  }
  grpc::Status Watch(grpc::ServerContext* context, const s::WatchRequest*,
                     grpc::ServerWriter<s::WatchResponse>* writer) override {
    s::WatchResponse response;
    response.mutable_event()->set_kind(s::WATCH_KIND_READY);
    writer->Write(response);
    while (!context->IsCancelled()) {
      std::this_thread::sleep_for(milliseconds(2));
    }
    ++drops;
    return grpc::Status::OK;
  }
};

using House = GatewayHouse<FileShim>;

grpc::Status Stat(House& house, g::StatResponse* response, milliseconds deadline = {}) {
  grpc::ClientContext context;
  if (deadline.count() != 0) {
    context.set_deadline(std::chrono::system_clock::now() + deadline);
  }
  g::StatRequest request;
  request.mutable_context()->set_session("s");
  request.mutable_context()->set_sender("whatsapp:+1");
  request.mutable_args()->set_path("a/b");
  return house.stub->Stat(&context, request, response);
}

}  // namespace

TEST_SUITE("unary file calls") {
  TEST_CASE("the request reaches the shim and its answer the caller") {
    House house;
    g::StatResponse response;
    CHECK(Stat(house, &response).ok());
    CHECK(response.info().path() == "a/b");
    const ToolCall call = house.gate.calls().at(0);
    CHECK(call.tool == "stat");
    CHECK(call.session == "s");
    CHECK(call.sender == "whatsapp:+1");
    CHECK(call.summary == "a/b");
    CHECK(Eventually([&] { return house.gate.held() == 0; }));
    CHECK(house.gate.outcomes() == std::vector<std::string>{"ok"});

    grpc::ClientContext c1, c2, c3, c4, c5;
    g::EditFileRequest edit;
    edit.mutable_args()->set_old_text("abc");
    g::EditFileResponse edited;
    CHECK(house.stub->EditFile(&c1, edit, &edited).ok());
    CHECK(edited.result().matches() == 3);
    g::MakeDirectoryResponse made;
    CHECK(house.stub->MakeDirectory(&c2, {}, &made).ok());
    CHECK(made.created());
    g::CopyResponse copied;
    CHECK(house.stub->Copy(&c3, {}, &copied).ok());
    CHECK(copied.entries() == 3);
    CHECK(copied.bytes() == 4);
    g::RemoveResponse removed;
    CHECK(house.stub->Remove(&c4, {}, &removed).ok());
    CHECK(removed.entries() == 5);
    g::MoveResponse moved;
    CHECK(house.stub->Move(&c5, {}, &moved).ok());
  }

  TEST_CASE("a shim's errors pass, made harmless") {
    House house;
    house.shim.stat_message = "\x1b[2Jno such file";
    g::StatResponse response;
    for (const int code : {3, 5, 6, 7, 8, 9, 10, 13}) {
      CAPTURE(code);
      house.shim.stat_code = code;
      const grpc::Status status = Stat(house, &response);
      CHECK(status.error_code() == code);
      CHECK(status.error_message() == "\\x1b[2Jno such file");
    }
    for (const int code : {2, 11, 12, 15, 16}) {
      CAPTURE(code);
      house.shim.stat_code = code;
      CHECK(Stat(house, &response).error_code() == grpc::StatusCode::INTERNAL);
    }
  }

  TEST_CASE("a lost sandbox ends a waiting call at once, with the reason") {
    House house;
    house.shim.hang = true;
    std::thread loser([&] {
      Eventually([&] { return house.gate.held() == 1; });
      house.gate.Lose(absl::UnavailableError("the shim was killed from outside"));
    });
    const auto before = steady_clock::now();
    g::StatResponse response;
    const grpc::Status status = Stat(house, &response);
    loser.join();
    CHECK(steady_clock::now() - before < std::chrono::seconds(1));
    CHECK(status.error_code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(status.error_message() == "the shim was killed from outside");
    CHECK(house.gate.outcomes().at(0) == "UNAVAILABLE: the shim was killed from outside");
    house.shim.hang = false;
  }

  TEST_CASE("a broken connection waits for its reason, but not long") {
    House house;
    house.shim.stat_code = 14;
    house.shim.stat_message = "Socket closed";
    const auto before = steady_clock::now();
    g::StatResponse response;
    const grpc::Status status = Stat(house, &response);
    CHECK(steady_clock::now() - before < std::chrono::seconds(1));
    CHECK(status.error_code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(status.error_message().find("the connection to the sandbox's shim broke") == 0);
  }

  TEST_CASE("the caller's deadline holds upstream, and what it left behind is let go") {
    House house;
    house.shim.hang = true;
    g::StatResponse response;
    CHECK(Stat(house, &response, milliseconds(100)).error_code() ==
          grpc::StatusCode::DEADLINE_EXCEEDED);
    CHECK(Eventually([&] { return house.gate.held() == 0; }));
    house.shim.hang = false;
  }
}

TEST_SUITE("downloads") {
  TEST_CASE("a large file arrives whole, and fast") {
    House house;
    house.shim.bytes_to_send = 256u << 20;
    grpc::ClientContext context;
    const auto before = steady_clock::now();
    g::ReadFileRequest request;
    request.mutable_args()->set_path("f");
    auto reader = house.stub->ReadFile(&context, request);
    g::ReadFileResponse response;
    uint64_t bytes = 0;
    while (reader->Read(&response)) {
      CHECK(response.chunk().has_info() == (bytes == 0));
      bytes += response.chunk().data().size();
    }
    CHECK(reader->Finish().ok());
    CHECK(bytes == 256u << 20);
    const std::chrono::duration<double> took = steady_clock::now() - before;
    MESSAGE("GB/s: " << static_cast<double>(bytes) / took.count() / 1e9);
  }

  TEST_CASE("a caller that does not read holds up the shim, not our memory") {
    House house;
    house.shim.bytes_to_send = 1u << 30;
    grpc::ClientContext context;
    auto reader = house.stub->ReadFile(&context, {});
    g::ReadFileResponse response;
    REQUIRE(reader->Read(&response));
    std::this_thread::sleep_for(milliseconds(500));
    CHECK(house.shim.bytes_sent < 64u << 20);
    context.TryCancel();
    CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
    CHECK(Eventually([&] { return house.shim.drops == 1; }));
    CHECK(Eventually([&] { return house.gate.held() == 0; }));
  }

  TEST_CASE("a shim that sends more than was asked for is cut off") {
    House house;
    house.shim.bytes_to_send = ~uint64_t{0};
    grpc::ClientContext context;
    g::ReadFileRequest request;
    request.mutable_args()->set_length(5u << 20);
    auto reader = house.stub->ReadFile(&context, request);
    g::ReadFileResponse response;
    int pieces = 0;
    while (reader->Read(&response)) {
      ++pieces;
    }
    CHECK(pieces == 5);
    CHECK(reader->Finish().error_code() == grpc::StatusCode::INTERNAL);
    CHECK(Eventually([&] { return house.shim.drops == 1; }));

    grpc::ClientContext list_context;
    g::ListDirectoryRequest list;
    list.mutable_args()->set_max_entries(45);
    auto lister = house.stub->ListDirectory(&list_context, list);
    g::ListDirectoryResponse batch;
    int entries = 0;
    while (lister->Read(&batch)) {
      entries += batch.batch().entries_size();
    }
    CHECK(entries == 40);
    CHECK(lister->Finish().error_code() == grpc::StatusCode::INTERNAL);
  }

  TEST_CASE("a lost sandbox ends a stream at once") {
    House house;
    grpc::ClientContext context;
    auto reader = house.stub->Watch(&context, {});
    g::WatchResponse response;
    REQUIRE(reader->Read(&response));
    CHECK(response.event().kind() == s::WATCH_KIND_READY);
    const auto before = steady_clock::now();
    house.gate.Lose(absl::UnavailableError("the container was removed"));
    CHECK(!reader->Read(&response));
    CHECK(reader->Finish().error_message() == "the container was removed");
    CHECK(steady_clock::now() - before < std::chrono::seconds(1));
    CHECK(Eventually([&] { return house.shim.drops == 1; }));
  }

  TEST_CASE("two hundred streams at once need few threads and all end") {
    House house;
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    std::vector<std::unique_ptr<grpc::ClientReader<g::GrepResponse>>> readers;
    for (int i = 0; i < 200; ++i) {
      contexts.push_back(std::make_unique<grpc::ClientContext>());
      readers.push_back(house.stub->Grep(contexts.back().get(), {}));
    }
    for (auto& reader : readers) {
      g::GrepResponse response;
      CHECK(reader->Read(&response));
      CHECK(!reader->Read(&response));
      CHECK(reader->Finish().ok());
    }
    CHECK(Eventually([&] { return house.gate.held() == 0; }));
  }
}

TEST_SUITE("uploads") {
  TEST_CASE("a file goes in whole") {
    House house;
    grpc::ClientContext context;
    g::WriteFileResponse response;
    auto writer = house.stub->WriteFile(&context, &response);
    g::WriteFileRequest request;
    request.mutable_start()->mutable_args()->set_path("f");
    writer->Write(request);
    for (int i = 0; i < 100; ++i) {
      request.set_data(std::string(1u << 20, 'x'));
      REQUIRE(writer->Write(request));
    }
    writer->WritesDone();
    CHECK(writer->Finish().ok());
    CHECK(response.result().info().size() == 100u << 20);
    CHECK(house.shim.commits == 1);
    CHECK(house.gate.calls().at(0).tool == "write");
  }

  TEST_CASE("an upload that its caller abandons is never taken for a whole one") {
    House house;
    constexpr int kRounds = 50;
    for (int i = 0; i < kRounds; ++i) {
      grpc::ClientContext context;
      g::WriteFileResponse response;
      auto writer = house.stub->WriteFile(&context, &response);
      g::WriteFileRequest request;
      request.mutable_start()->mutable_args()->set_path("f");
      writer->Write(request);
      request.set_data("half");
      writer->Write(request);
      if (i % 2 == 0) {
        std::this_thread::sleep_for(milliseconds(5));
      }
      context.TryCancel();
      CHECK(writer->Finish().error_code() == grpc::StatusCode::CANCELLED);
    }
    CHECK(Eventually([&] { return house.gate.held() == 0; }));
    std::this_thread::sleep_for(milliseconds(100));
    CHECK(house.shim.commits == 0);
  }

  TEST_CASE("a shim that refuses midway ends the call with its reason") {
    House house;
    house.shim.stat_code = 8;
    house.shim.stat_message = "the disk is full";
    grpc::ClientContext context;
    g::WriteFileResponse response;
    auto writer = house.stub->WriteFile(&context, &response);
    g::WriteFileRequest request;
    request.mutable_start()->mutable_args()->set_path("f");
    writer->Write(request);
    request.set_data(std::string(1u << 20, 'x'));
    while (writer->Write(request)) {
    }
    const grpc::Status status = writer->Finish();
    CHECK(status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    CHECK(status.error_message() == "the disk is full");
  }

  TEST_CASE("messages out of order are refused") {
    House house;
    {
      grpc::ClientContext context;
      g::WriteFileResponse response;
      auto writer = house.stub->WriteFile(&context, &response);
      g::WriteFileRequest request;
      request.set_data("x");
      writer->Write(request);
      CHECK(writer->Finish().error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    }
    {
      grpc::ClientContext context;
      g::WriteFileResponse response;
      auto writer = house.stub->WriteFile(&context, &response);
      g::WriteFileRequest request;
      request.mutable_start()->mutable_args()->set_path("f");
      writer->Write(request);
      writer->Write(request);
      CHECK(writer->Finish().error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    }
    std::this_thread::sleep_for(milliseconds(50));
    CHECK(house.shim.commits == 0);
  }
}
