#include "agent-shim/api/file_handlers.h"

#include <atomic>
#include <utility>

#include "agent-shim/api/file_reactors.h"
#include "agent-shim/api/watch_call.h"
#include "agent-shim/files/copy.h"
#include "agent-shim/files/entries.h"
#include "agent-shim/files/grep.h"
#include "agent-shim/files/list.h"
#include "agent-shim/files/remove.h"
#include "agent-shim/files/tar_in.h"
#include "agent-shim/files/tar_out.h"
#include "agent-shim/files/writer.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr int kMaxWorkers = 8;

// WriteFile: the arguments first, then data.
class WriteConsumer final : public Consumer<v1::WriteFileRequest> {
 public:
  WriteConsumer(const FileRoots& roots, v1::WriteFileResponse* response)
      : roots_(roots), response_(response) {}

  absl::Status Take(v1::WriteFileRequest& request, const Cancel& cancel) override {
    if (writer_ == nullptr) {
      if (!request.has_args()) {
        return absl::InvalidArgumentError("the first message holds no arguments");
      }
      ASSIGN_OR_RETURN(writer_, FileWriter::Open(roots_, request.args(), cancel));
      return absl::OkStatus();
    }
    if (!request.has_data()) {
      return absl::InvalidArgumentError("a message behind the first holds no data");
    }
    return writer_->Append(request.data());
  }

  absl::Status Finish(const Cancel&) override {
    if (writer_ == nullptr) {
      return absl::InvalidArgumentError("the stream holds no arguments");
    }
    ASSIGN_OR_RETURN(*response_->mutable_result(), writer_->Commit());
    return absl::OkStatus();
  }

 private:
  const FileRoots& roots_;
  v1::WriteFileResponse* const response_;
  std::unique_ptr<FileWriter> writer_;
};

// TarIn: the same shape.
class TarConsumer final : public Consumer<v1::TarInRequest> {
 public:
  TarConsumer(const FileRoots& roots, v1::TarInResponse* response)
      : roots_(roots), response_(response) {}

  absl::Status Take(v1::TarInRequest& request, const Cancel&) override {
    if (unpacker_ == nullptr) {
      if (!request.has_args()) {
        return absl::InvalidArgumentError("the first message holds no arguments");
      }
      ASSIGN_OR_RETURN(unpacker_, TarUnpacker::Open(roots_, request.args()));
      return absl::OkStatus();
    }
    if (!request.has_data()) {
      return absl::InvalidArgumentError("a message behind the first holds no data");
    }
    return unpacker_->Append(request.data());
  }

  absl::Status Finish(const Cancel&) override {
    if (unpacker_ == nullptr) {
      return absl::InvalidArgumentError("the stream holds no arguments");
    }
    ASSIGN_OR_RETURN(*response_->mutable_result(), unpacker_->Finish());
    return absl::OkStatus();
  }

 private:
  const FileRoots& roots_;
  v1::TarInResponse* const response_;
  std::unique_ptr<TarUnpacker> unpacker_;
};

}  // namespace

struct FileHandlers::State {
  State(FileRoots file_roots, ToolIdentity identity)
      : roots(std::move(file_roots)),
        tool(identity),
        workers(identity, kMaxWorkers),
        watchers(identity, WatchCall::kMaxWatches) {}

  const FileRoots roots;
  const ToolIdentity tool;
  std::atomic<int> watches{0};
  WorkerPool workers;
  WorkerPool watchers;
};

FileHandlers::FileHandlers(FileRoots roots, ToolIdentity tool)
    : state_(std::make_unique<State>(std::move(roots), tool)) {}

FileHandlers::~FileHandlers() = default;

grpc::ServerUnaryReactor* FileHandlers::Stat(grpc::CallbackServerContext*,
                                             const v1::StatRequest* request,
                                             v1::StatResponse* response) {
  return new UnaryCall(state_->workers, [=, &roots = state_->roots](const Cancel&) -> absl::Status {
    ASSIGN_OR_RETURN(*response->mutable_info(), shim::Stat(roots, request->args()));
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::ReadFileResponse>* FileHandlers::ReadFile(
    grpc::CallbackServerContext*, const v1::ReadFileRequest* request) {
  return new StreamCall<v1::ReadFileResponse, v1::FileChunk>(
      state_->workers,
      [args = request->args(), &roots = state_->roots](const Cancel&) {
        return shim::ReadFile(roots, args);
      },
      [](v1::ReadFileResponse& response) { return response.mutable_chunk(); });
}

grpc::ServerReadReactor<v1::WriteFileRequest>* FileHandlers::WriteFile(
    grpc::CallbackServerContext* context, v1::WriteFileResponse* response) {
  return new ReceiveCall<v1::WriteFileRequest>(
      context, state_->workers, std::make_unique<WriteConsumer>(state_->roots, response));
}

grpc::ServerUnaryReactor* FileHandlers::EditFile(grpc::CallbackServerContext*,
                                                 const v1::EditFileRequest* request,
                                                 v1::EditFileResponse* response) {
  return new UnaryCall(state_->workers,
                       [=, &roots = state_->roots](const Cancel& cancel) -> absl::Status {
                         ASSIGN_OR_RETURN(*response->mutable_result(),
                                          shim::EditFile(roots, request->args(), cancel));
                         return absl::OkStatus();
                       });
}

grpc::ServerWriteReactor<v1::ListDirectoryResponse>* FileHandlers::ListDirectory(
    grpc::CallbackServerContext*, const v1::ListDirectoryRequest* request) {
  return new StreamCall<v1::ListDirectoryResponse, v1::FileBatch>(
      state_->workers,
      [args = request->args(), &roots = state_->roots](const Cancel&) {
        return shim::ListDirectory(roots, args);
      },
      [](v1::ListDirectoryResponse& response) { return response.mutable_batch(); });
}

grpc::ServerUnaryReactor* FileHandlers::MakeDirectory(grpc::CallbackServerContext*,
                                                      const v1::MakeDirectoryRequest* request,
                                                      v1::MakeDirectoryResponse* response) {
  return new UnaryCall(state_->workers, [=, &roots = state_->roots](const Cancel&) -> absl::Status {
    ASSIGN_OR_RETURN(const bool created, shim::MakeDirectory(roots, request->args()));
    response->set_created(created);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* FileHandlers::Move(grpc::CallbackServerContext*,
                                             const v1::MoveRequest* request, v1::MoveResponse*) {
  return new UnaryCall(state_->workers, [=, &roots = state_->roots](const Cancel& cancel) {
    return shim::Move(roots, request->args(), cancel);
  });
}

grpc::ServerUnaryReactor* FileHandlers::Copy(grpc::CallbackServerContext*,
                                             const v1::CopyRequest* request,
                                             v1::CopyResponse* response) {
  return new UnaryCall(
      state_->workers, [=, &roots = state_->roots](const Cancel& cancel) -> absl::Status {
        ASSIGN_OR_RETURN(const Copied copied, shim::Copy(roots, request->args(), cancel));
        response->set_entries(copied.entries);
        response->set_bytes(copied.bytes);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* FileHandlers::Remove(grpc::CallbackServerContext*,
                                               const v1::RemoveRequest* request,
                                               v1::RemoveResponse* response) {
  return new UnaryCall(
      state_->workers, [=, &roots = state_->roots](const Cancel& cancel) -> absl::Status {
        ASSIGN_OR_RETURN(const uint64_t entries, shim::Remove(roots, request->args(), cancel));
        response->set_entries(entries);
        return absl::OkStatus();
      });
}

grpc::ServerWriteReactor<v1::GlobResponse>* FileHandlers::Glob(grpc::CallbackServerContext*,
                                                               const v1::GlobRequest* request) {
  return new StreamCall<v1::GlobResponse, v1::FileBatch>(
      state_->workers,
      [args = request->args(), &roots = state_->roots](const Cancel&) {
        return shim::Glob(roots, args);
      },
      [](v1::GlobResponse& response) { return response.mutable_batch(); });
}

grpc::ServerWriteReactor<v1::GrepResponse>* FileHandlers::Grep(grpc::CallbackServerContext*,
                                                               const v1::GrepRequest* request) {
  return new StreamCall<v1::GrepResponse, v1::GrepBatch>(
      state_->workers,
      [args = request->args(), &roots = state_->roots](const Cancel&) {
        return shim::Grep(roots, args);
      },
      [](v1::GrepResponse& response) { return response.mutable_batch(); });
}

grpc::ServerWriteReactor<v1::WatchResponse>* FileHandlers::Watch(grpc::CallbackServerContext*,
                                                                 const v1::WatchRequest* request) {
  return new WatchCall(state_->roots, state_->tool, state_->watchers, state_->watches,
                       request->args());
}

grpc::ServerWriteReactor<v1::TarOutResponse>* FileHandlers::TarOut(
    grpc::CallbackServerContext*, const v1::TarOutRequest* request) {
  return new StreamCall<v1::TarOutResponse, std::string>(
      state_->workers,
      [args = request->args(), &roots = state_->roots](const Cancel&) {
        return shim::TarOut(roots, args);
      },
      [](v1::TarOutResponse& response) { return response.mutable_data(); });
}

grpc::ServerReadReactor<v1::TarInRequest>* FileHandlers::TarIn(grpc::CallbackServerContext* context,
                                                               v1::TarInResponse* response) {
  return new ReceiveCall<v1::TarInRequest>(context, state_->workers,
                                           std::make_unique<TarConsumer>(state_->roots, response));
}

}  // namespace creel::shim
