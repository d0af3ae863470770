#pragma once

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/integration/support/supervisor.h"

namespace creel::testing {

// How many containers wait for a session, and how many are wanted, as the doctor says.
inline std::pair<int, int> Pool(Supervisor& supervisor) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  operator_::v1::DiagnoseResponse response;
  static_cast<void>(supervisor.operators().Diagnose(&context, {}, &response));
  for (const auto& finding : response.findings()) {
    int ready = 0;
    int wanted = 0;
    if (finding.id() == "warm-pool" &&
        std::sscanf(finding.title().c_str(), "%d of %d sandboxes", &ready, &wanted) == 2) {
      return {ready, wanted};
    }
  }
  return {-1, -1};
}

inline bool PoolFilled(Supervisor& supervisor, int count,
                       std::chrono::seconds patience = std::chrono::seconds(120)) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (Pool(supervisor).first != count) {
    if (std::chrono::steady_clock::now() > until) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  return true;
}

// A container as the engine tells of it.
struct Living {
  std::string id;
  std::string sandbox;  // its label
  std::string spec;
  int pid = 0;
  bool paused = false;
};

inline Living Look(const std::string& container) {
  Living living;
  std::istringstream words(
      RunProgram({"docker", "inspect", "-f",
                  "{{.Id}} {{index .Config.Labels \"creel.sandbox\"}} "
                  "{{index .Config.Labels \"creel.spec\"}} {{.State.Pid}} {{.State.Paused}}",
                  container})
          .out);
  std::string paused;
  words >> living.id >> living.sandbox >> living.spec >> living.pid >> paused;
  living.paused = paused == "true";
  return living;
}

inline std::string Slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What a supervisor has left on the host: containers, mounts, loop devices, folders of sandboxes.
inline std::string Left(const Supervisor& supervisor) {
  namespace fs = std::filesystem;
  std::string left;
  for (const std::string& id : ContainersOf(supervisor)) {
    left += "container " + id + "\n";
  }
  for (const std::string& line : MountsWith(supervisor.dir() + "/")) {
    left += "mount " + line + "\n";
  }
  std::istringstream loops(RunProgram({"losetup", "-a"}).out);
  for (std::string line; std::getline(loops, line);) {
    left += line.find(supervisor.dir() + "/") != std::string::npos ? "loop " + line + "\n" : "";
  }
  for (const std::string& folder :
       {supervisor.run_dir() + "/sandboxes", supervisor.run_dir() + "/mounts",
        supervisor.state_dir() + "/sandboxes"}) {
    std::error_code ignored;
    for (auto at = fs::directory_iterator(folder, ignored); at != fs::directory_iterator(); ++at) {
      left += "folder " + at->path().string() + "\n";
    }
  }
  return left;
}

}  // namespace creel::testing
