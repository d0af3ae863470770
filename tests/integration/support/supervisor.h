#pragma once

#include <grpcpp/channel.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "creel/gateway/v1/gateway.grpc.pb.h"
#include "creel/operator/v1/operator.grpc.pb.h"
#include "tests/integration/support/process.h"

namespace creel::testing {

// How a supervisor under test is set up.
struct SupervisorOptions {
  std::string engine_host{};     // empty: the machine's engine
  std::string runtime{};         // empty: $CREEL_TEST_RUNTIME, else the engine's default
  std::string extra_config{};    // YAML added at the end, at top level
  std::string sandbox_config{};  // YAML lines of the `sandbox` section, indented by two
  std::string image{};           // empty: $CREEL_TEST_IMAGE, else creel-sandbox:latest
  std::string shim{};            // empty: the one just built
  // Runs creeld as a user who has no right but to speak to the engine, as a member of the docker
  // group; with the concessions that this takes.
  bool as_docker_user = false;
  std::string keep_dir{};  // run and state folders of an earlier supervisor to go on with
};

// What a command in a sandbox left behind.
struct Outcome {
  std::string out;
  std::string err;
  shim::v1::Exit exit;
  bool has_exit = false;
  uint64_t missed = 0;
  std::string process_id;
  grpc::Status status;
  [[nodiscard]] int code() const {
    return has_exit && exit.how_case() == shim::v1::Exit::kCode ? exit.code() : -1;
  }
};

// A real creeld of its own, in folders of its own, on the real engine. Ends it, and removes all it
// made, at the end of its life.
class Supervisor {
 public:
  explicit Supervisor(SupervisorOptions options = {});
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  gateway::v1::Gateway::Stub& gateway() { return *gateway_; }
  operator_::v1::Operator::Stub& operators() { return *operator_; }
  // For the operator's other services.
  [[nodiscard]] std::shared_ptr<grpc::Channel> OperatorChannel() const;
  // Runs the creel command against this supervisor.
  [[nodiscard]] Finished Creel(const std::vector<std::string>& arguments) const;
  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] std::string run_dir() const { return dir_ + "/run"; }
  [[nodiscard]] std::string state_dir() const { return dir_ + "/state"; }
  [[nodiscard]] const std::string& engine_host() const { return options_.engine_host; }
  [[nodiscard]] std::string Log() const;
  [[nodiscard]] pid_t pid() const { return process_->pid(); }

  // Ends the daemon with this signal and starts another (with `shim`, if given) on the same
  // folders.
  void Restart(int signal, const std::string& shim = "");
  // Ends the daemon and leaves everything else, for the next one.
  void Stop(int signal);
  void StartAgain(const std::string& shim = "");

  grpc::Status Open(const std::string& session,
                    gateway::v1::OpenSessionResponse* response = nullptr,
                    const std::function<void(gateway::v1::OpenSessionRequest&)>& change = {});
  grpc::Status Close(const std::string& session);
  gateway::v1::Session Get(const std::string& session);

  // Runs a command to its end.
  Outcome Exec(const std::string& session, const std::vector<std::string>& argv,
               const std::function<void(gateway::v1::ExecStart&)>& change = {},
               const std::string& input = "",
               std::chrono::seconds timeout = std::chrono::seconds(60));
  Outcome Shell(const std::string& session, const std::string& line,
                std::chrono::seconds timeout = std::chrono::seconds(60));
  grpc::Status Write(const std::string& session, const std::string& path, const std::string& data,
                     uint32_t mode = 0);
  std::pair<grpc::Status, std::string> Read(const std::string& session, const std::string& path);
  // Puts one of the small hostile programs into the sandbox, at /tmp or the workspace.
  std::string PutProgram(const std::string& session, const std::string& name);

 private:
  void Begin(const std::string& shim);

  SupervisorOptions options_;
  std::string dir_;
  bool keep_ = false;
  std::unique_ptr<Background> process_;
  std::unique_ptr<gateway::v1::Gateway::Stub> gateway_;
  std::unique_ptr<operator_::v1::Operator::Stub> operator_;
};

// Containers that carry Creel's label of the supervisor whose state lies in `state_dir`.
std::vector<std::string> ContainersOf(const Supervisor& supervisor);
// Lines of /proc/self/mounts that mention `text`.
std::vector<std::string> MountsWith(const std::string& text);

// Paths below `folder` at which a socket listens, by /proc/net/unix.
std::vector<std::string> ListeningSockets(const std::string& folder);

// Waits until `condition` holds; false if it never did.
bool Eventually(const std::function<bool()>& condition,
                std::chrono::milliseconds patience = std::chrono::seconds(10));

}  // namespace creel::testing
