#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "creel/shim/v1/shim.grpc.pb.h"

namespace creel {

// A shim without any wall, for tests of what stands in front of one: it runs commands as plain
// children of the test, and packs and unpacks with the machine's `tar` below a folder of the
// test's. One thread or two per call.
class LocalShim : public shim::v1::Shim::Service {
 public:
  // Relative paths and those below `/workspace` name files in `root`.
  explicit LocalShim(std::string root);

  grpc::Status Run(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<shim::v1::RunResponse, shim::v1::RunRequest>* stream) override;
  // A stop only, which kills.
  grpc::Status SendInput(grpc::ServerContext* context, const shim::v1::SendInputRequest* request,
                         shim::v1::SendInputResponse* response) override;
  grpc::Status ReadFile(grpc::ServerContext* context, const shim::v1::ReadFileRequest* request,
                        grpc::ServerWriter<shim::v1::ReadFileResponse>* writer) override;
  grpc::Status WriteFile(grpc::ServerContext* context,
                         grpc::ServerReader<shim::v1::WriteFileRequest>* reader,
                         shim::v1::WriteFileResponse* response) override;
  grpc::Status MakeDirectory(grpc::ServerContext* context,
                             const shim::v1::MakeDirectoryRequest* request,
                             shim::v1::MakeDirectoryResponse* response) override;
  // All that is below, as with `recursive`.
  grpc::Status ListDirectory(grpc::ServerContext* context,
                             const shim::v1::ListDirectoryRequest* request,
                             grpc::ServerWriter<shim::v1::ListDirectoryResponse>* writer) override;
  grpc::Status Stat(grpc::ServerContext* context, const shim::v1::StatRequest* request,
                    shim::v1::StatResponse* response) override;
  grpc::Status TarOut(grpc::ServerContext* context, const shim::v1::TarOutRequest* request,
                      grpc::ServerWriter<shim::v1::TarOutResponse>* writer) override;
  grpc::Status TarIn(grpc::ServerContext* context,
                     grpc::ServerReader<shim::v1::TarInRequest>* reader,
                     shim::v1::TarInResponse* response) override;

 private:
  std::string Resolve(const std::string& path) const;

  const std::string root_;
  std::mutex mu_;
  std::map<std::string, pid_t> running_;  // by process id
};

}  // namespace creel
