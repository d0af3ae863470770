#pragma once

#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "supervisor/api/page_service.h"
#include "supervisor/audit/audit_log.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/config/web_config.h"
#include "supervisor/web/metrics.h"
#include "supervisor/web/operator_calls.h"

namespace creel::web {

// The page for the operator, and the metrics: HTTP/1.1 on one address, served by one thread. It
// does what the operator's door does, through it, for browsers that are logged in.
class WebServer {
 public:
  struct Rooms {
    WebConfig config;
    std::string state_dir;
    const Clock& clock;
    Metrics& metrics;
    AuditLog* audit = nullptr;  // null (in tests): nobody is told of logins
  };

  // Listens; nothing is served before Serve.
  //   kAlreadyExists     the address is taken
  //   kPermissionDenied  we may not have that port
  static absl::StatusOr<std::unique_ptr<WebServer>> Listen(const Rooms& rooms);
  // As Stop.
  ~WebServer();
  WebServer(const WebServer&) = delete;
  WebServer& operator=(const WebServer&) = delete;

  // Serves from here on, through the operator's door. `caller` names who a call is made for.
  void Serve(std::shared_ptr<grpc::Channel> operators,
             std::function<Caller(const std::string& who)> caller);
  // Ends every connection. Must come before the operator's door goes.
  void Stop();

  // An address that logs a browser in.
  absl::StatusOr<PageDoor::Address> OpenAddress();
  absl::Status CloseLogins();
  [[nodiscard]] std::string url() const;

 private:
  class Impl;
  explicit WebServer(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace creel::web
