#pragma once

#include <fcntl.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <string>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/mutex.h"
#include "tests/supervisor/sandbox/raw_frames.h"

namespace creel {

// A shim in the test's own process: answers Hello as a real one does, or as told, and GetStatus
// once Hello has succeeded.
class FakeShim final : public shim::v1::Shim::Service {
 public:
  FakeShim() {
    grpc::ServerBuilder builder;
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeShim() override {
    HangUp();
    server_->Shutdown(std::chrono::system_clock::now());
  }

  // Calls home; false if nobody listens.
  bool Call(const std::string& path) {
    UniqueFd fd = ConnectUnix(path);
    if (!fd.valid()) {
      return false;
    }
    wire_.reset(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
    fcntl(fd.get(), F_SETFL, O_RDWR | O_NONBLOCK);
    grpc::AddInsecureChannelFromFd(server_.get(), fd.release());
    return true;
  }
  void HangUp() {
    if (wire_.valid()) {
      shutdown(wire_.get(), SHUT_RDWR);
      wire_.reset();
    }
  }
  // The socket below gRPC, to say there what gRPC would not.
  [[nodiscard]] int wire() const { return wire_.get(); }

  // Changes an answer before it is given.
  std::function<void(shim::v1::HelloResponse&)> lie;
  std::string version = CREEL_VERSION;

  [[nodiscard]] std::string key() const {
    MutexLock lock(mu_);
    return key_;
  }
  void set_key(const std::string& key, const std::string& sandbox_id) {
    MutexLock lock(mu_);
    key_ = key;
    sandbox_id_ = sandbox_id;
  }

  grpc::Status Hello(grpc::ServerContext*, const shim::v1::HelloRequest* request,
                     shim::v1::HelloResponse* response) override {
    MutexLock lock(mu_);
    if (request->key().empty() == key_.empty()) {
      return {grpc::StatusCode::FAILED_PRECONDITION, "a key too many or too few"};
    }
    if (key_.empty()) {
      key_ = request->key();
      sandbox_id_ = request->setup().sandbox_id();
    }
    response->set_version(version);
    response->set_sandbox_id(sandbox_id_);
    response->set_proof(HmacSha256(key_, "creel-hello-1" + request->nonce()));
    if (lie) {
      lie(*response);
    }
    return grpc::Status::OK;
  }

  grpc::Status GetStatus(grpc::ServerContext*, const shim::v1::GetStatusRequest*,
                         shim::v1::GetStatusResponse* response) override {
    response->set_threads(7);
    return grpc::Status::OK;
  }

 private:
  UniqueFd wire_;
  mutable Mutex mu_;
  std::string key_ ABSL_GUARDED_BY(mu_);
  std::string sandbox_id_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace creel
