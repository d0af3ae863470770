#pragma once

#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "creel/gateway/v1/gateway.grpc.pb.h"
#include "supervisor/api/gateway_service.h"
#include "tests/fakes/fake_house.h"
#include "tests/fakes/local_shim.h"

namespace creel {

// A folder that is removed with all that is in it.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = std::filesystem::temp_directory_path() / "creel-test-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The gateway's door over fakes, and a client before it.
template <class ShimService>
struct GatewayHouse {
  template <class... Args>
  explicit GatewayHouse(Args&&... args)
      : shim(std::forward<Args>(args)...),
        sandbox(std::make_shared<FakeSandbox>(shim)),
        gate(sandbox),
        sessions(sandbox),
        service(sessions, gate, "/workspace") {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    stub = gateway::v1::Gateway::NewStub(ConnectTo(*server));
  }
  ~GatewayHouse() { server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1)); }

  ShimService shim;
  std::shared_ptr<FakeSandbox> sandbox;
  FakeGate gate;
  FakeSessions sessions;
  GatewayService service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<gateway::v1::Gateway::Stub> stub;
};

// Waits for something that another thread brings about.
template <class Condition>
bool Eventually(Condition condition, std::chrono::milliseconds within = std::chrono::seconds(5)) {
  const auto until = std::chrono::steady_clock::now() + within;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) {
      return false;
    }
    usleep(2000);
  }
  return true;
}

}  // namespace creel
