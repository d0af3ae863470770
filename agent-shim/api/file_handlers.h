#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "agent-shim/files/identity.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/shim.grpc.pb.h"

namespace creel::shim {

// The file RPCs of the shim's service: each method has the signature of the generated
// `v1::Shim::CallbackService` virtual of the same name, which forwards to it. Nothing blocks in a
// callback; the work runs on worker threads (at most 8, started when needed, ended when idle) that
// carry the tool's identity for good. Made once, after Hello; must outlive every call it was
// given: shut the server down first. Thread-safe.
class FileHandlers {
 public:
  FileHandlers(FileRoots roots, ToolIdentity tool);
  ~FileHandlers();
  FileHandlers(const FileHandlers&) = delete;
  FileHandlers& operator=(const FileHandlers&) = delete;

  grpc::ServerUnaryReactor* Stat(grpc::CallbackServerContext* context,
                                 const v1::StatRequest* request, v1::StatResponse* response);
  grpc::ServerWriteReactor<v1::ReadFileResponse>* ReadFile(grpc::CallbackServerContext* context,
                                                           const v1::ReadFileRequest* request);
  grpc::ServerReadReactor<v1::WriteFileRequest>* WriteFile(grpc::CallbackServerContext* context,
                                                           v1::WriteFileResponse* response);
  grpc::ServerUnaryReactor* EditFile(grpc::CallbackServerContext* context,
                                     const v1::EditFileRequest* request,
                                     v1::EditFileResponse* response);
  grpc::ServerWriteReactor<v1::ListDirectoryResponse>* ListDirectory(
      grpc::CallbackServerContext* context, const v1::ListDirectoryRequest* request);
  grpc::ServerUnaryReactor* MakeDirectory(grpc::CallbackServerContext* context,
                                          const v1::MakeDirectoryRequest* request,
                                          v1::MakeDirectoryResponse* response);
  grpc::ServerUnaryReactor* Move(grpc::CallbackServerContext* context,
                                 const v1::MoveRequest* request, v1::MoveResponse* response);
  grpc::ServerUnaryReactor* Copy(grpc::CallbackServerContext* context,
                                 const v1::CopyRequest* request, v1::CopyResponse* response);
  grpc::ServerUnaryReactor* Remove(grpc::CallbackServerContext* context,
                                   const v1::RemoveRequest* request, v1::RemoveResponse* response);
  grpc::ServerWriteReactor<v1::GlobResponse>* Glob(grpc::CallbackServerContext* context,
                                                   const v1::GlobRequest* request);
  grpc::ServerWriteReactor<v1::GrepResponse>* Grep(grpc::CallbackServerContext* context,
                                                   const v1::GrepRequest* request);
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request);
  grpc::ServerWriteReactor<v1::TarOutResponse>* TarOut(grpc::CallbackServerContext* context,
                                                       const v1::TarOutRequest* request);
  grpc::ServerReadReactor<v1::TarInRequest>* TarIn(grpc::CallbackServerContext* context,
                                                   v1::TarInResponse* response);

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace creel::shim
