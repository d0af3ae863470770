#include "supervisor/sandbox/process_table.h"

#include <doctest/doctest.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace creel {
namespace {

using shim::v1::Exit;
using shim::v1::Output;
using shim::v1::ProcessInfo;
using shim::v1::RunRequest;
using shim::v1::RunResponse;
using Stream = grpc::ServerReaderWriter<RunResponse, RunRequest>;

// A shim whose Run does what the test says.
class ScriptedShim final : public shim::v1::Shim::Service {
 public:
  using Script = std::function<grpc::Status(grpc::ServerContext&, const RunRequest&, Stream&)>;

  explicit ScriptedShim(Script script) : script_(std::move(script)) {
    grpc::ServerBuilder builder;
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~ScriptedShim() override { Stop(); }

  void Stop() {
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  }

  std::shared_ptr<shim::v1::Shim::StubInterface> Stub() {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    grpc::AddInsecureChannelFromFd(server_.get(), ends[0]);
    return shim::v1::Shim::NewStub(grpc::CreateInsecureChannelFromFd("shim", ends[1]));
  }

  grpc::Status Run(grpc::ServerContext* context, Stream* stream) override {
    RunRequest first;
    if (!stream->Read(&first)) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "nothing came");
    }
    return script_(*context, first, *stream);
  }

 private:
  Script script_;
  std::unique_ptr<grpc::Server> server_;
};

void Started(Stream& stream) {
  RunResponse response;
  response.mutable_event()->mutable_started()->set_pid(42);
  stream.Write(response);
}

void Out(Stream& stream, uint64_t offset, std::string data) {
  RunResponse response;
  Output& output = *response.mutable_event()->mutable_output();
  output.set_stream(shim::v1::OUTPUT_STREAM_STDOUT);
  output.set_offset(offset);
  output.set_data(std::move(data));
  stream.Write(response);
}

void Exited(Stream& stream, int code) {
  RunResponse response;
  response.mutable_event()->mutable_exit()->set_code(code);
  stream.Write(response);
}

// Reads a process to its end, waiting as needed.
struct Reader {
  std::string data;
  uint64_t offset = 0;
  uint64_t missed = 0;
  std::optional<Exit> exit;
  absl::Status failure;

  // Returns false if nothing came for `patience`.
  bool ToTheEnd(RemoteProcess& process,
                std::chrono::milliseconds patience = std::chrono::seconds(10)) {
    while (!exit && failure.ok()) {
      auto woken = std::make_shared<std::promise<void>>();
      auto wait = woken->get_future();
      auto next = process.Read(offset, [woken] { woken->set_value(); });
      if (auto* output = std::get_if<std::shared_ptr<const Output>>(&next)) {
        data += (*output)->data();
        offset += (*output)->data().size();
        process.ReaderAt(offset);
      } else if (auto* gap = std::get_if<shim::v1::OutputGap>(&next)) {
        missed += gap->to() - gap->from();
        offset = gap->to();
      } else if (auto* end = std::get_if<Exit>(&next)) {
        exit = *end;
      } else if (auto* status = std::get_if<absl::Status>(&next)) {
        failure = *status;
      } else if (wait.wait_for(patience) != std::future_status::ready) {
        return false;
      }
    }
    return true;
  }
};

ProcessTable::Options Options() {
  return {.spool_dir = std::filesystem::temp_directory_path().string()};
}

TEST_SUITE("ProcessTable") {
  TEST_CASE("a command's output and exit reach the reader, and a second one that comes later") {
    ScriptedShim shim([](auto&, const RunRequest& first, Stream& stream) {
      CHECK(first.start().spec().argv(0) == "echo");
      Started(stream);
      Out(stream, 0, "hello ");
      Out(stream, 6, "world");
      Exited(stream, 3);
      return grpc::Status::OK;
    });
    ProcessTable table(Options());
    shim::v1::CommandSpec spec;
    spec.add_argv("echo");
    const auto process = table.Start(shim.Stub(), "", spec);
    for (int i = 0; i < 2; ++i) {
      Reader reader;
      REQUIRE(reader.ToTheEnd(*process));
      CHECK(reader.data == "hello world");
      CHECK(reader.exit->code() == 3);
      CHECK(reader.exit->output_bytes() == 11);
    }
    CHECK(table.running() == 0);
    CHECK(table.List().size() == 1);
    CHECK(table.Find(process->Info().process_id()) == process);
  }

  TEST_CASE("a refused command gives the shim's status, and its id is free again") {
    ScriptedShim shim([](auto&, const RunRequest&, Stream&) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "argv is empty");
    });
    ProcessTable table(Options());
    const auto process = table.Start(shim.Stub(), "one", {});
    Reader reader;
    REQUIRE(reader.ToTheEnd(*process));
    CHECK(reader.failure.code() == absl::StatusCode::kInvalidArgument);
    CHECK(reader.failure.message() == "argv is empty");
  }

  TEST_CASE("an id in use is refused") {
    ScriptedShim shim([](grpc::ServerContext& context, const RunRequest&, Stream& stream) {
      Started(stream);
      while (!context.IsCancelled()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      return grpc::Status::CANCELLED;
    });
    ProcessTable table(Options());
    const auto first = table.Start(shim.Stub(), "same", {});
    const auto second = table.Start(shim.Stub(), "same", {});
    Reader reader;
    REQUIRE(reader.ToTheEnd(*second));
    CHECK(reader.failure.code() == absl::StatusCode::kAlreadyExists);
    CHECK(table.running() == 1);
    table.LoseAll("the test is over");
  }

  TEST_CASE("a lost sandbox ends every reader with the reason, even one that waits") {
    ScriptedShim shim([](grpc::ServerContext& context, const RunRequest&, Stream& stream) {
      Started(stream);
      Out(stream, 0, "some");
      while (!context.IsCancelled()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      return grpc::Status::CANCELLED;
    });
    ProcessTable table(Options());
    const auto process = table.Start(shim.Stub(), "", {});
    std::thread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      table.LoseAll("container ended with exit code 137");
    });
    Reader reader;
    REQUIRE(reader.ToTheEnd(*process));
    later.join();
    CHECK(reader.data == "some");
    CHECK(reader.exit->lost() == "container ended with exit code 137");
  }

  TEST_CASE("a broken stream that comes back goes on where it was") {
    std::atomic<int> calls{0};
    ScriptedShim shim([&](auto&, const RunRequest& first, Stream& stream) {
      if (++calls == 1) {
        Started(stream);
        Out(stream, 0, "first,");
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
      }
      CHECK(first.attach().offset() == 6);
      Started(stream);
      Out(stream, 6, "second");
      Exited(stream, 0);
      return grpc::Status::OK;
    });
    ProcessTable table(Options());
    const auto process = table.Start(shim.Stub(), "", {});
    std::thread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      table.Resume(shim.Stub());
    });
    Reader reader;
    REQUIRE(reader.ToTheEnd(*process));
    later.join();
    CHECK(reader.data == "first,second");
    CHECK(reader.exit->code() == 0);
  }

  TEST_CASE("a broken stream that stays away is lost within a second") {
    ScriptedShim shim([](auto&, const RunRequest&, Stream& stream) {
      Started(stream);
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
    });
    ProcessTable table(Options());
    const auto begin = std::chrono::steady_clock::now();
    const auto process = table.Start(shim.Stub(), "", {});
    Reader reader;
    REQUIRE(reader.ToTheEnd(*process));
    CHECK(reader.exit->how_case() == Exit::kLost);
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(1500));
  }

  TEST_CASE("an exit code is never invented when the shim ends the stream without one") {
    ScriptedShim shim([](auto&, const RunRequest&, Stream& stream) {
      Started(stream);
      return grpc::Status::OK;
    });
    ProcessTable table(Options());
    const auto process = table.Start(shim.Stub(), "", {});
    Reader reader;
    REQUIRE(reader.ToTheEnd(*process));
    CHECK(reader.exit->how_case() == Exit::kLost);
  }

  TEST_CASE("a shim that lies about offsets or never stops is dropped") {
    for (const bool lie : {true, false}) {
      ScriptedShim shim([lie](grpc::ServerContext& context, const RunRequest&, Stream& stream) {
        Started(stream);
        if (lie) {
          Out(stream, ~0ull - 3, "lie");
        }
        while (!context.IsCancelled()) {
          RunResponse empty;
          empty.mutable_event()->mutable_output();
          if (!stream.Write(empty)) {
            break;
          }
        }
        return grpc::Status::CANCELLED;
      });
      ProcessTable table(Options());
      const auto process = table.Start(shim.Stub(), "", {});
      Reader reader;
      REQUIRE(reader.ToTheEnd(*process));
      CHECK(reader.exit->how_case() == Exit::kLost);
    }
  }

  TEST_CASE("a reader of OVERFLOW_BLOCK loses nothing, however late it comes") {
    constexpr uint64_t kTotal = 40u << 20;
    std::atomic<uint64_t> sent{0};
    ScriptedShim shim([&](auto&, const RunRequest&, Stream& stream) {
      Started(stream);
      for (uint64_t offset = 0; offset < kTotal; offset += 256 << 10) {
        Out(stream, offset, std::string(256 << 10, static_cast<char>('a' + (offset >> 18) % 26)));
        sent = offset;
      }
      Exited(stream, 0);
      return grpc::Status::OK;
    });
    ProcessTable table(Options());
    shim::v1::CommandSpec spec;
    spec.set_overflow(shim::v1::OVERFLOW_BLOCK);
    const auto process = table.Start(shim.Stub(), "", spec);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    CHECK(sent.load() < 30u << 20);
    Reader reader;
    REQUIRE(reader.ToTheEnd(*process));
    CHECK(reader.data.size() == kTotal);
    CHECK(reader.missed == 0);
    bool all_right = true;
    for (uint64_t at = 0; at < reader.data.size(); at += 4096) {
      all_right = all_right && reader.data[at] == static_cast<char>('a' + (at >> 18) % 26);
    }
    CHECK(all_right);
  }

  TEST_CASE("without it a command never waits for its reader") {
    constexpr uint64_t kTotal = 40u << 20;
    ScriptedShim shim([&](auto&, const RunRequest&, Stream& stream) {
      Started(stream);
      for (uint64_t offset = 0; offset < kTotal; offset += 256 << 10) {
        Out(stream, offset, std::string(256 << 10, 'x'));
      }
      Exited(stream, 0);
      return grpc::Status::OK;
    });
    ProcessTable table(Options());
    const auto process = table.Start(shim.Stub(), "", {});
    for (int i = 0; i < 1000 && table.running() > 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    REQUIRE(table.running() == 0);
    Reader reader;
    REQUIRE(reader.ToTheEnd(*process));
    CHECK(reader.data.size() + reader.missed == kTotal);
    CHECK(reader.missed > 0);
  }

  TEST_CASE("input arrives in order, and a stop overtakes what waits") {
    std::promise<std::string> seen;
    ScriptedShim shim([&](auto&, const RunRequest&, Stream& stream) {
      Started(stream);
      std::string text;
      RunRequest request;
      while (stream.Read(&request)) {
        if (request.input().has_stop()) {
          break;
        }
        text += request.input().stdin();
      }
      seen.set_value(text);
      Exited(stream, 0);
      return grpc::Status::OK;
    });
    ProcessTable table(Options());
    const auto process = table.Start(shim.Stub(), "", {});
    for (const char* word : {"a", "b", "c"}) {
      std::promise<absl::Status> taken;
      shim::v1::ProcessInput input;
      input.set_stdin(word);
      process->Send(std::move(input), [&](absl::Status status) { taken.set_value(status); });
      CHECK(taken.get_future().get().ok());
    }
    process->Stop();
    CHECK(seen.get_future().get() == "abc");
    Reader reader;
    REQUIRE(reader.ToTheEnd(*process));
    absl::Status after;
    process->Send({}, [&](absl::Status status) { after = status; });
    CHECK(after.code() == absl::StatusCode::kFailedPrecondition);
  }

  TEST_CASE("only so many ended commands are remembered") {
    ScriptedShim shim([](auto&, const RunRequest&, Stream& stream) {
      Started(stream);
      Exited(stream, 0);
      return grpc::Status::OK;
    });
    ProcessTable::Options options = Options();
    options.remembered = 5;
    ProcessTable table(options);
    for (int i = 0; i < 20; ++i) {
      Reader reader;
      REQUIRE(reader.ToTheEnd(*table.Start(shim.Stub(), "", {})));
    }
    for (int i = 0; i < 100 && table.List().size() > 5; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK(table.List().size() == 5);
  }
}

}  // namespace
}  // namespace creel
