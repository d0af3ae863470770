#pragma once

#include <memory>
#include <string>
#include <vector>

#include "supervisor/api/server.h"
#include "tests/fakes/fake_engine.h"
#include "tests/supervisor/api/gateway_house.h"

namespace creel {

// Both doors at sockets in a folder of their own, over fakes: what a client of creeld meets.
struct DoorsHouse {
  DoorsHouse() {
    config.paths.run_dir = folder.path();
    links = *LinkPool::Start();
    server = *ApiServer::Start({.sessions = sessions,
                                .gate = gate,
                                .engine = engine,
                                .links = *links,
                                .config = config,
                                .diagnose = [this](bool) { return findings; }});
  }
  ~DoorsHouse() { server.reset(); }

  std::string gateway_socket() const { return folder.path() + "/gateway.sock"; }
  std::string operator_socket() const { return folder.path() + "/operator.sock"; }

  ScratchFolder folder;
  ScratchFolder files;  // the sandbox's
  LocalShim shim{files.path()};
  std::shared_ptr<FakeSandbox> sandbox = std::make_shared<FakeSandbox>(shim);
  FakeGate gate{sandbox};
  FakeSessions sessions{sandbox};
  FakeEngine engine;
  Config config;
  std::vector<Finding> findings;
  std::unique_ptr<LinkPool> links;
  std::unique_ptr<ApiServer> server;
};

}  // namespace creel
