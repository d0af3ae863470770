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
  explicit LocalShim(std::string root) : root_(std::move(root)) {}

  grpc::Status Run(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<shim::v1::RunResponse, shim::v1::RunRequest>* stream) override;
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
};

}  // namespace creel
