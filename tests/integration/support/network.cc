#include "tests/integration/support/network.h"

#include <sched.h>
#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

void Run(const std::vector<std::string>& argv) {
  const Finished finished = RunProgram(argv);
  if (finished.exit_code != 0) {
    std::string line;
    for (const std::string& each : argv) {
      line += each + " ";
    }
    throw std::runtime_error(line + ": " + finished.err);
  }
}

}  // namespace

Outside::Outside() {
  char name[] = "/tmp/creel-outside-XXXXXX";
  if (mkdtemp(name) == nullptr || unshare(CLONE_NEWNET) != 0) {
    throw std::runtime_error(std::string("no network namespace: ") + std::strerror(errno));
  }
  folder_ = name;
  holder_ = std::make_unique<Background>(
      std::vector<std::string>{"unshare", "--net", "--", "sleep", "infinity"},
      folder_ + "/holder.log");
  const std::string pid = std::to_string(holder_->pid());
  const std::string ours = std::filesystem::read_symlink("/proc/self/ns/net").string();
  const bool apart = Eventually([&] {
    std::error_code error;
    const auto theirs = std::filesystem::read_symlink("/proc/" + pid + "/ns/net", error).string();
    return !error && theirs != ours;
  });
  if (!apart) {
    throw std::runtime_error("unshare did not make a namespace");
  }
  const std::vector<std::string> there{"nsenter", "-t", pid, "-n", "ip"};
  const auto in_there = [&](std::vector<std::string> more) {
    std::vector<std::string> argv = there;
    argv.insert(argv.end(), more.begin(), more.end());
    Run(argv);
  };
  Run({"ip", "link", "set", "lo", "up"});
  Run({"ip", "link", "add", "inside", "type", "veth", "peer", "name", "outside", "netns", pid});
  Run({"ip", "addr", "add", "192.0.2.1/24", "dev", "inside"});
  Run({"ip", "link", "set", "inside", "up"});
  in_there({"link", "set", "lo", "up"});
  in_there({"link", "set", "outside", "up"});
  for (const char* address : {"192.0.2.53/24", "192.0.2.80/24", "198.51.100.66/24"}) {
    in_there({"addr", "add", address, "dev", "outside"});
  }
  Run({"ip", "route", "add", "198.51.100.0/24", "dev", "inside"});
  // Nothing of ours may wait for an answer that never comes.
  Run({"ip", "route", "add", "unreachable", "default"});
  servers_ = std::make_unique<Background>(
      std::vector<std::string>{"nsenter", "-t", pid, "-n", "python3",
                               std::string(CREEL_TEST_SOURCES) + "/tests/integration/egress/servers.py", folder_},
      folder_ + "/servers.log");
  if (!Eventually([&] { return std::filesystem::exists(folder_ + "/ready"); },
                  std::chrono::seconds(60))) {
    std::ifstream log(folder_ + "/servers.log");
    throw std::runtime_error("the servers did not start: " +
                             std::string(std::istreambuf_iterator<char>(log), {}));
  }
}

Outside::~Outside() {
  servers_.reset();
  holder_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::vector<std::string> Outside::Seen(const std::string& text) const {
  std::vector<std::string> lines;
  std::ifstream log(folder_ + "/seen.log");
  size_t number = 0;
  for (std::string line; std::getline(log, line);) {
    if (number++ >= forgotten_ && line.find(text) != std::string::npos) {
      lines.push_back(line);
    }
  }
  return lines;
}

void Outside::Forget() {
  forgotten_ = 0;
  forgotten_ = Seen().size();
}

}  // namespace creel::testing
