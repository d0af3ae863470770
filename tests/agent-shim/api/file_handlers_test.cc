#include "agent-shim/api/file_handlers.h"

#include <dirent.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/crypto.h"
#include "tests/agent-shim/files/scratch.h"

namespace creel::shim {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// The shim's service with its file calls alone.
class FileService final : public v1::Shim::CallbackService {
 public:
  explicit FileService(FileHandlers& files) : files_(files) {}

  grpc::ServerUnaryReactor* Stat(grpc::CallbackServerContext* context,
                                 const v1::StatRequest* request,
                                 v1::StatResponse* response) override {
    return files_.Stat(context, request, response);
  }
  grpc::ServerWriteReactor<v1::ReadFileResponse>* ReadFile(
      grpc::CallbackServerContext* context, const v1::ReadFileRequest* request) override {
    return files_.ReadFile(context, request);
  }
  grpc::ServerReadReactor<v1::WriteFileRequest>* WriteFile(
      grpc::CallbackServerContext* context, v1::WriteFileResponse* response) override {
    return files_.WriteFile(context, response);
  }
  grpc::ServerUnaryReactor* EditFile(grpc::CallbackServerContext* context,
                                     const v1::EditFileRequest* request,
                                     v1::EditFileResponse* response) override {
    return files_.EditFile(context, request, response);
  }
  grpc::ServerWriteReactor<v1::ListDirectoryResponse>* ListDirectory(
      grpc::CallbackServerContext* context, const v1::ListDirectoryRequest* request) override {
    return files_.ListDirectory(context, request);
  }
  grpc::ServerUnaryReactor* MakeDirectory(grpc::CallbackServerContext* context,
                                          const v1::MakeDirectoryRequest* request,
                                          v1::MakeDirectoryResponse* response) override {
    return files_.MakeDirectory(context, request, response);
  }
  grpc::ServerUnaryReactor* Move(grpc::CallbackServerContext* context,
                                 const v1::MoveRequest* request,
                                 v1::MoveResponse* response) override {
    return files_.Move(context, request, response);
  }
  grpc::ServerUnaryReactor* Copy(grpc::CallbackServerContext* context,
                                 const v1::CopyRequest* request,
                                 v1::CopyResponse* response) override {
    return files_.Copy(context, request, response);
  }
  grpc::ServerUnaryReactor* Remove(grpc::CallbackServerContext* context,
                                   const v1::RemoveRequest* request,
                                   v1::RemoveResponse* response) override {
    return files_.Remove(context, request, response);
  }
  grpc::ServerWriteReactor<v1::GlobResponse>* Glob(grpc::CallbackServerContext* context,
                                                   const v1::GlobRequest* request) override {
    return files_.Glob(context, request);
  }
  grpc::ServerWriteReactor<v1::GrepResponse>* Grep(grpc::CallbackServerContext* context,
                                                   const v1::GrepRequest* request) override {
    return files_.Grep(context, request);
  }
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request) override {
    return files_.Watch(context, request);
  }
  grpc::ServerWriteReactor<v1::TarOutResponse>* TarOut(grpc::CallbackServerContext* context,
                                                       const v1::TarOutRequest* request) override {
    return files_.TarOut(context, request);
  }
  grpc::ServerReadReactor<v1::TarInRequest>* TarIn(grpc::CallbackServerContext* context,
                                                   v1::TarInResponse* response) override {
    return files_.TarIn(context, response);
  }

 private:
  FileHandlers& files_;
};

class Rig {
 public:
  Rig()
      : files_(*FileRoots::Open(scratch.Work(""), {scratch.Second("")}),
               {.uid = geteuid(), .gid = getegid()}),
        service_(files_) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub = v1::Shim::NewStub(server_->InProcessChannel({}));
  }
  ~Rig() { server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2)); }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  const Scratch scratch;
  std::unique_ptr<v1::Shim::Stub> stub;

  grpc::Status Write(const std::string& path, const std::vector<std::string>& pieces,
                     v1::WriteFileResponse* response) {
    grpc::ClientContext context;
    auto writer = stub->WriteFile(&context, response);
    v1::WriteFileRequest request;
    request.mutable_args()->set_path(path);
    writer->Write(request);
    for (const std::string& piece : pieces) {
      request.set_data(piece);
      writer->Write(request);
    }
    writer->WritesDone();
    return writer->Finish();
  }

 private:
  FileHandlers files_;
  FileService service_;
  std::unique_ptr<grpc::Server> server_;
};

size_t OpenFiles() {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

size_t EntriesIn(const std::string& directory) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory), {}));
}

template <typename Condition>
bool Within(milliseconds limit, Condition condition) {
  const auto until = steady_clock::now() + limit;
  while (!condition()) {
    if (steady_clock::now() > until) {
      return false;
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

TEST_SUITE("FileHandlers") {
  TEST_CASE("what is written is read, byte for byte") {
    Rig rig;
    std::vector<std::string> pieces;
    std::string content;
    for (int i = 0; i < 40; ++i) {
      pieces.push_back(RandomBytes(static_cast<size_t>(i) * 9'999 + 1));
      content += pieces.back();
    }
    v1::WriteFileResponse written;
    REQUIRE(rig.Write("file", pieces, &written).ok());
    Sha256 hash;
    hash.Update(content);
    CHECK(written.result().sha256() == hash.Finish());
    grpc::ClientContext context;
    v1::ReadFileRequest request;
    request.mutable_args()->set_path("file");
    auto reader = rig.stub->ReadFile(&context, request);
    v1::ReadFileResponse response;
    std::string read;
    bool first = true;
    while (reader->Read(&response)) {
      CHECK(response.chunk().has_info() == first);
      first = false;
      read += response.chunk().data();
    }
    CHECK(reader->Finish().ok());
    CHECK(read == content);
  }

  TEST_CASE("each verb arrives") {
    Rig rig;
    v1::WriteFileResponse written;
    REQUIRE(rig.Write("a.txt", {"hello world\n"}, &written).ok());
    const auto call = [&](auto method, const auto& request, auto* response) {
      grpc::ClientContext context;
      const grpc::Status status = (rig.stub.get()->*method)(&context, request, response);
      CHECK_MESSAGE(status.ok(), status.error_message());
    };
    v1::StatRequest stat;
    v1::StatResponse stat_response;
    stat.mutable_args()->set_path("a.txt");
    call(&v1::Shim::Stub::Stat, stat, &stat_response);
    CHECK(stat_response.info().size() == 12);
    v1::EditFileRequest edit;
    v1::EditFileResponse edit_response;
    edit.mutable_args()->set_path("a.txt");
    edit.mutable_args()->set_old_text("world");
    edit.mutable_args()->set_new_text("there");
    call(&v1::Shim::Stub::EditFile, edit, &edit_response);
    CHECK(edit_response.result().matches() == 1);
    v1::MakeDirectoryRequest make;
    v1::MakeDirectoryResponse make_response;
    make.mutable_args()->set_path("d");
    call(&v1::Shim::Stub::MakeDirectory, make, &make_response);
    CHECK(make_response.created());
    v1::CopyRequest copy;
    v1::CopyResponse copy_response;
    copy.mutable_args()->set_source("a.txt");
    copy.mutable_args()->set_destination("d/b.txt");
    call(&v1::Shim::Stub::Copy, copy, &copy_response);
    CHECK(copy_response.bytes() == 12);
    v1::MoveRequest move;
    v1::MoveResponse move_response;
    move.mutable_args()->set_source("a.txt");
    move.mutable_args()->set_destination("d/c.txt");
    call(&v1::Shim::Stub::Move, move, &move_response);
    const auto stream = [&](auto method, const auto& request, auto response, auto each) {
      grpc::ClientContext context;
      auto reader = (rig.stub.get()->*method)(&context, request);
      while (reader->Read(&response)) {
        each(response);
      }
      CHECK(reader->Finish().ok());
    };
    int listed = 0;
    v1::ListDirectoryRequest list;
    list.mutable_args()->set_path("d");
    stream(&v1::Shim::Stub::ListDirectory, list, v1::ListDirectoryResponse(),
           [&](const auto& r) { listed += r.batch().entries_size(); });
    CHECK(listed == 2);
    int globbed = 0;
    v1::GlobRequest glob;
    glob.mutable_args()->set_pattern("**/*.txt");
    stream(&v1::Shim::Stub::Glob, glob, v1::GlobResponse(),
           [&](const auto& r) { globbed += r.batch().entries_size(); });
    CHECK(globbed == 2);
    int found = 0;
    v1::GrepRequest grep;
    grep.mutable_args()->set_pattern("there");
    stream(&v1::Shim::Stub::Grep, grep, v1::GrepResponse(),
           [&](const auto& r) { found += r.batch().matches_size(); });
    CHECK(found == 2);
    std::string archive;
    v1::TarOutRequest out;
    out.mutable_args()->set_path("d");
    stream(&v1::Shim::Stub::TarOut, out, v1::TarOutResponse(),
           [&](const auto& r) { archive += r.data(); });
    grpc::ClientContext context;
    v1::TarInResponse unpacked;
    auto writer = rig.stub->TarIn(&context, &unpacked);
    v1::TarInRequest in;
    in.mutable_args()->set_path(rig.scratch.Second(""));
    writer->Write(in);
    in.set_data(archive);
    writer->Write(in);
    writer->WritesDone();
    CHECK(writer->Finish().ok());
    CHECK(unpacked.result().entries() == 3);
    CHECK(Get(rig.scratch.Second("d/c.txt")) == "hello there\n");
    v1::RemoveRequest remove;
    v1::RemoveResponse remove_response;
    remove.mutable_args()->set_path("d");
    remove.mutable_args()->set_recursive(true);
    call(&v1::Shim::Stub::Remove, remove, &remove_response);
    CHECK(remove_response.entries() == 3);
  }

  TEST_CASE("errors keep their code and say which path") {
    Rig rig;
    grpc::ClientContext context;
    v1::StatRequest request;
    v1::StatResponse response;
    request.mutable_args()->set_path("/etc/passwd");
    const grpc::Status status = rig.stub->Stat(&context, request, &response);
    CHECK(status.error_code() == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(status.error_message().find("/etc/passwd") != std::string::npos);
    grpc::ClientContext empty_context;
    v1::WriteFileResponse written;
    auto writer = rig.stub->WriteFile(&empty_context, &written);
    writer->WritesDone();
    CHECK(writer->Finish().error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    v1::WriteFileResponse outside;
    CHECK(rig.Write("/etc/x", std::vector<std::string>(50, std::string(100'000, 'x')), &outside)
              .error_code() == grpc::StatusCode::PERMISSION_DENIED);
  }

  TEST_CASE("a write that is cancelled at any point changes nothing and leaves nothing") {
    Rig rig;
    Put(rig.scratch.Work("file"), "old");
    for (int round = 0; round < 200; ++round) {
      grpc::ClientContext context;
      v1::WriteFileResponse response;
      auto writer = rig.stub->WriteFile(&context, &response);
      v1::WriteFileRequest request;
      request.mutable_args()->set_path("file");
      writer->Write(request);
      request.set_data("half");
      for (int i = 0; i < round % 5; ++i) {
        writer->Write(request);
      }
      if (round % 3 == 0) {
        std::this_thread::sleep_for(milliseconds(1));
      }
      context.TryCancel();
      CHECK(!writer->Finish().ok());
    }
    CHECK(Within(milliseconds(3000), [&] { return EntriesIn(rig.scratch.Work("")) == 1; }));
    CHECK(Get(rig.scratch.Work("file")) == "old");
  }

  TEST_CASE("readers that do not read hold up nobody") {
    Rig rig;
    Put(rig.scratch.Work("large"), "");
    REQUIRE(truncate(rig.scratch.Work("large").c_str(), off_t{1} << 40) == 0);
    Put(rig.scratch.Work("small"), "small");
    v1::ReadFileRequest request;
    request.mutable_args()->set_path("large");
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    std::vector<std::unique_ptr<grpc::ClientReader<v1::ReadFileResponse>>> readers;
    for (int i = 0; i < 50; ++i) {
      contexts.push_back(std::make_unique<grpc::ClientContext>());
      readers.push_back(rig.stub->ReadFile(contexts.back().get(), request));
    }
    const auto begin = steady_clock::now();
    grpc::ClientContext context;
    v1::StatRequest stat;
    v1::StatResponse response;
    stat.mutable_args()->set_path("small");
    CHECK(rig.stub->Stat(&context, stat, &response).ok());
    CHECK(steady_clock::now() - begin < std::chrono::seconds(2));
    for (const auto& one : contexts) {
      one->TryCancel();
    }
    for (const auto& reader : readers) {
      CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
    }
  }

  TEST_CASE("a hundred calls at once get their own answers, and no descriptor stays") {
    Rig rig;
    for (int i = 0; i < 100; ++i) {
      Put(rig.scratch.Work(std::to_string(i)), std::string(static_cast<size_t>(i) * 20'000, 'x'));
    }
    const auto read_all = [&](int i) {
      grpc::ClientContext context;
      v1::ReadFileRequest request;
      request.mutable_args()->set_path(std::to_string(i));
      auto reader = rig.stub->ReadFile(&context, request);
      v1::ReadFileResponse response;
      size_t size = 0;
      while (reader->Read(&response)) {
        size += response.chunk().data().size();
      }
      return reader->Finish().ok() && size == static_cast<size_t>(i) * 20'000;
    };
    CHECK(read_all(99));
    const size_t before = OpenFiles();
    std::atomic<int> good = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 100; ++i) {
      threads.emplace_back([&, i] { good += read_all(i) ? 1 : 0; });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(good == 100);
    CHECK(Within(milliseconds(3000), [&] { return OpenFiles() <= before; }));
  }

  TEST_CASE("a watch tells until it is cancelled, and too many are refused") {
    Rig rig;
    const auto request = [] {
      v1::WatchRequest watch;
      watch.mutable_args()->set_path(".");
      return watch;
    };
    std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
    std::vector<std::unique_ptr<grpc::ClientReader<v1::WatchResponse>>> readers;
    for (int i = 0; i < 17; ++i) {
      contexts.push_back(std::make_unique<grpc::ClientContext>());
      readers.push_back(rig.stub->Watch(contexts.back().get(), request()));
      v1::WatchResponse ready;
      if (i < 16) {
        REQUIRE(readers.back()->Read(&ready));
        CHECK(ready.event().kind() == v1::WATCH_KIND_READY);
      } else {
        CHECK(!readers.back()->Read(&ready));
        CHECK(readers.back()->Finish().error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
      }
    }
    Put(rig.scratch.Work("new"), "");
    v1::WatchResponse event;
    REQUIRE(readers.front()->Read(&event));
    CHECK(event.event().kind() == v1::WATCH_KIND_CREATED);
    CHECK(event.event().path() == "new");
    const auto begin = steady_clock::now();
    for (int i = 0; i < 16; ++i) {
      contexts[static_cast<size_t>(i)]->TryCancel();
      v1::WatchResponse rest;
      while (readers[static_cast<size_t>(i)]->Read(&rest)) {
      }
      CHECK(readers[static_cast<size_t>(i)]->Finish().error_code() == grpc::StatusCode::CANCELLED);
    }
    CHECK(steady_clock::now() - begin < std::chrono::seconds(1));
  }
}

}  // namespace
}  // namespace creel::shim
