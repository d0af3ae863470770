#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/api/operator_service.h"
#include "supervisor/api/page_service.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/egress/proxy.h"
#include "supervisor/engine/engine.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/link_pool.h"
#include "supervisor/session/call_gate.h"
#include "supervisor/session/session_manager.h"

namespace creel {

class AuditLog;
class IncidentManager;
class SecretDesk;

// Both doors: gateway.sock with creel.gateway.v1, operator.sock with creel.operator.v1, each with
// grpc.health.v1 and reflection. Their connections come through the frame guard.
class ApiServer {
 public:
  // What it serves with; all must outlive it.
  struct Rooms {
    SessionManager& sessions;
    CallGate& gate;
    Engine& engine;
    LinkPool& links;
    const Config& config;
    // Null: calls about it end with UNIMPLEMENTED.
    egress::Proxy* egress = nullptr;
    // What `creel doctor` shows. `fix`: after it has put right what can be. May block.
    std::function<std::vector<Finding>(bool fix)> diagnose;
    // What `creel doctor --gateway-config` shows. Null (in tests): UNIMPLEMENTED.
    std::function<absl::StatusOr<std::vector<Finding>>(const std::string& text,
                                                       const std::string& name)>
        diagnose_gateway{};
    // What the operator does is told here; null (in tests): nowhere, and there is no
    // creel.operator.v1.Record.
    AuditLog* audit = nullptr;
    // Null (in tests): there is no creel.operator.v1.Incidents.
    IncidentManager* incidents = nullptr;
    // Null (in tests): there is no creel.operator.v1.Secrets.
    SecretDesk* secrets = nullptr;
    // Who may ask for what; without it the calls about that are not served.
    PolicyDesk* desk = nullptr;
    ReloadFunction reload{};
    PageDoor page{};
  };

  // Listens and serves from here on. On failure nothing is left behind:
  //   kInvalidArgument     a socket's path is too long for the kernel
  //   kFailedPrecondition  a socket's group is unknown
  //   kNotFound            there is no such folder
  //   kAlreadyExists       something else than a socket is there
  static absl::StatusOr<std::unique_ptr<ApiServer>> Start(const Rooms& rooms);
  // As Stop, without patience.
  ~ApiServer();
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  // The operator's door without a listener, for the page: the same services by the same way. What
  // is done through it is told in the record as done by whoever `metadata` names, see PageCaller.
  // An error means that no descriptor is to be had.
  [[nodiscard]] absl::StatusOr<std::shared_ptr<grpc::Channel>> OperatorChannel();
  // Metadata that a call through OperatorChannel carries, to be told as done by `who`. Without it
  // the call is told as one at the socket.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> PageCaller(
      const std::string& who) const;

  // Takes no more connections and calls, lets those under way end until `deadline`, then cancels
  // them. Returns when none is left. May be repeated.
  void Stop(Deadline deadline);

 private:
  struct Impl;
  explicit ApiServer(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

// Where a door's socket is: what the configuration says, else `name` in the run folder.
std::string DoorPath(const Config& config, const DoorConfig& door, const std::string& name);

}  // namespace creel
