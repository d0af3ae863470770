#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "creel/operator/v1/page.grpc.pb.h"
#include "supervisor/api/sandbox_meter.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/base/status.h"
#include "supervisor/engine/engine.h"
#include "supervisor/incident/incident_manager.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// What the page has to offer at the operator's door. Without functions no page is served.
struct PageDoor {
  struct Address {
    std::string url;
    std::chrono::system_clock::time_point expires_at;
  };
  // kFailedPrecondition: there is no page, and why. kResourceExhausted: too many wait.
  std::function<absl::StatusOr<Address>()> open{};
  // Ends all logins.
  std::function<absl::Status()> close{};
};

// creel.operator.v1.Page. Thread-safe.
class PageService final : public operator_::v1::Page::CallbackService {
 public:
  // All must outlive the service; `incidents` may be null.
  PageService(SessionManager& sessions, Engine& engine, const std::string& workdir,
              IncidentManager* incidents, const std::string& incidents_dir, PageDoor door);

  grpc::ServerUnaryReactor* OpenPage(grpc::CallbackServerContext* context,
                                     const operator_::v1::OpenPageRequest* request,
                                     operator_::v1::OpenPageResponse* response) override;
  grpc::ServerUnaryReactor* ClosePage(grpc::CallbackServerContext* context,
                                      const operator_::v1::ClosePageRequest* request,
                                      operator_::v1::ClosePageResponse* response) override;
  grpc::ServerUnaryReactor* ListUsage(grpc::CallbackServerContext* context,
                                      const operator_::v1::ListUsageRequest* request,
                                      operator_::v1::ListUsageResponse* response) override;
  grpc::ServerUnaryReactor* ListCommands(grpc::CallbackServerContext* context,
                                         const operator_::v1::ListCommandsRequest* request,
                                         operator_::v1::ListCommandsResponse* response) override;
  grpc::ServerWriteReactor<operator_::v1::ReadOutputResponse>* ReadOutput(
      grpc::CallbackServerContext* context,
      const operator_::v1::ReadOutputRequest* request) override;
  grpc::ServerUnaryReactor* OpenBundle(grpc::CallbackServerContext* context,
                                       const operator_::v1::OpenBundleRequest* request,
                                       operator_::v1::OpenBundleResponse* response) override;
  grpc::ServerUnaryReactor* GetCapture(grpc::CallbackServerContext* context,
                                       const operator_::v1::GetCaptureRequest* request,
                                       operator_::v1::GetCaptureResponse* response) override;

 private:
  SessionManager& sessions_;
  IncidentManager* const incidents_;
  const std::string incidents_dir_;
  const PageDoor door_;
  SandboxMeter meter_;
  WorkerPool measurers_{1};
  WorkerPool workers_{2};
};

}  // namespace creel
