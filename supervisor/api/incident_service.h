#pragma once

#include "creel/operator/v1/incident.grpc.pb.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/incident/incident_manager.h"

namespace creel {

// creel.operator.v1.Incidents. Thread-safe.
class IncidentService final : public operator_::v1::Incidents::CallbackService {
 public:
  // Both must outlive the service.
  IncidentService(IncidentManager& incidents, AuditLog& audit)
      : incidents_(incidents), audit_(audit) {}

  grpc::ServerUnaryReactor* OpenIncident(grpc::CallbackServerContext* context,
                                         const operator_::v1::OpenIncidentRequest* request,
                                         operator_::v1::OpenIncidentResponse* response) override;
  grpc::ServerUnaryReactor* ListIncidents(grpc::CallbackServerContext* context,
                                          const operator_::v1::ListIncidentsRequest* request,
                                          operator_::v1::ListIncidentsResponse* response) override;
  grpc::ServerUnaryReactor* GetIncident(grpc::CallbackServerContext* context,
                                        const operator_::v1::GetIncidentRequest* request,
                                        operator_::v1::GetIncidentResponse* response) override;
  grpc::ServerUnaryReactor* CaptureIncident(
      grpc::CallbackServerContext* context, const operator_::v1::CaptureIncidentRequest* request,
      operator_::v1::CaptureIncidentResponse* response) override;
  grpc::ServerUnaryReactor* ReportIncident(
      grpc::CallbackServerContext* context, const operator_::v1::ReportIncidentRequest* request,
      operator_::v1::ReportIncidentResponse* response) override;
  grpc::ServerUnaryReactor* ThawIncident(grpc::CallbackServerContext* context,
                                         const operator_::v1::ThawIncidentRequest* request,
                                         operator_::v1::ThawIncidentResponse* response) override;
  grpc::ServerUnaryReactor* TeardownIncident(
      grpc::CallbackServerContext* context, const operator_::v1::TeardownIncidentRequest* request,
      operator_::v1::TeardownIncidentResponse* response) override;

 private:
  IncidentManager& incidents_;
  AuditLog& audit_;
  // Opening waits for nothing else, not for those either that were opened to be taken down.
  WorkerPool openers_{32};
  // Nor do thawing and tearing down wait for evidence of other incidents that is being collected.
  WorkerPool capturers_{4};
  WorkerPool workers_{16};
};

}  // namespace creel
