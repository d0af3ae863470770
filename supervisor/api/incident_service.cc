#include "supervisor/api/incident_service.h"

#include <string>
#include <utility>

#include "supervisor/api/convert.h"
#include "supervisor/api/on_worker.h"
#include "supervisor/incident/report.h"

namespace creel {
namespace {

// Capture has bounds of its own.
constexpr std::chrono::minutes kWithin{15};
constexpr int kMaxLeftOut = 100;
// What a message may hold.
constexpr size_t kMaxReport = 3u << 20;

google::protobuf::Duration ToDuration(std::chrono::microseconds took) {
  google::protobuf::Duration duration;
  duration.set_seconds(took.count() / 1'000'000);
  duration.set_nanos(static_cast<int32_t>(took.count() % 1'000'000 * 1000));
  return duration;
}

operator_::v1::Bundle ToMessage(const IncidentBundle& bundle) {
  operator_::v1::Bundle message;
  message.set_path(bundle.path);
  message.set_bytes(bundle.bytes);
  message.set_sha256(bundle.sha256);
  *message.mutable_made_at() = ToTimestamp(bundle.made_at);
  *message.mutable_took() = ToDuration(bundle.took);
  message.set_members(bundle.members);
  for (const std::string& what : bundle.left_out) {
    if (message.left_out_size() >= kMaxLeftOut) {
      break;
    }
    message.add_left_out(what);
  }
  return message;
}

operator_::v1::Incident ToMessage(const Incident& incident) {
  operator_::v1::Incident message;
  message.set_id(incident.id);
  message.set_scope(ScopeText(incident));
  message.set_reason(incident.reason);
  message.set_state(StateText(incident.state));
  *message.mutable_opened_at() = ToTimestamp(incident.opened_at);
  if (incident.state != IncidentState::kOpen) {
    *message.mutable_ended_at() = ToTimestamp(incident.ended_at);
  }
  *message.mutable_gate_took() = ToDuration(incident.gate_took);
  *message.mutable_freeze_took() = ToDuration(incident.freeze_took);
  for (const IncidentSandbox& each : incident.sandboxes) {
    operator_::v1::IncidentSandbox& sandbox = *message.add_sandboxes();
    sandbox.set_session(each.session);
    sandbox.set_sender(each.sender);
    sandbox.set_sandbox_id(each.sandbox_id);
    sandbox.set_container_id(each.container_id);
    sandbox.set_method(each.method);
    sandbox.set_error(each.error);
  }
  for (const IncidentBundle& each : incident.bundles) {
    *message.add_bundles() = ToMessage(each);
  }
  message.set_gateway_stop(incident.gateway_stop);
  return message;
}

absl::StatusOr<IncidentManager::OpenRequest> FromMessage(
    const operator_::v1::OpenIncidentRequest& message) {
  IncidentManager::OpenRequest request{.reason = message.reason(),
                                       .capture = !message.without_capture(),
                                       .stop_gateway = message.stop_gateway(),
                                       .teardown = message.teardown()};
  switch (message.scope_case()) {
    case operator_::v1::OpenIncidentRequest::kAll:
      if (!message.all()) {
        return absl::InvalidArgumentError("`all` is false; name a session or a sender instead");
      }
      request.scope = HoldRule::Scope::kAll;
      break;
    case operator_::v1::OpenIncidentRequest::kSender:
      request.scope = HoldRule::Scope::kSender;
      request.who = message.sender();
      break;
    case operator_::v1::OpenIncidentRequest::kSession:
      request.scope = HoldRule::Scope::kSession;
      request.who = message.session();
      break;
    case operator_::v1::OpenIncidentRequest::SCOPE_NOT_SET:
      return absl::InvalidArgumentError("whom it is about is missing: a session, a sender, or all");
  }
  return request;
}

}  // namespace

grpc::ServerUnaryReactor* IncidentService::OpenIncident(
    grpc::CallbackServerContext* context, const operator_::v1::OpenIncidentRequest* request,
    operator_::v1::OpenIncidentResponse* response) {
  return OnWorker(*context, openers_, kWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(const IncidentManager::OpenRequest asked,
                                     FromMessage(*request));
                    ASSIGN_OR_RETURN(const IncidentManager::Opened opened, incidents_.Open(asked));
                    *response->mutable_incident() = ToMessage(opened.incident);
                    for (const std::string& problem : opened.problems) {
                      response->add_problems(problem);
                    }
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* IncidentService::ListIncidents(
    grpc::CallbackServerContext* context, const operator_::v1::ListIncidentsRequest* /*request*/,
    operator_::v1::ListIncidentsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  for (const Incident& incident : incidents_.List()) {
    *response->add_incidents() = ToMessage(incident);
  }
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* IncidentService::GetIncident(
    grpc::CallbackServerContext* context, const operator_::v1::GetIncidentRequest* request,
    operator_::v1::GetIncidentResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<Incident> incident = incidents_.Get(request->id());
  if (incident.ok()) {
    *response->mutable_incident() = ToMessage(*incident);
  }
  reactor->Finish(ToGrpc(incident.status()));
  return reactor;
}

grpc::ServerUnaryReactor* IncidentService::CaptureIncident(
    grpc::CallbackServerContext* context, const operator_::v1::CaptureIncidentRequest* request,
    operator_::v1::CaptureIncidentResponse* response) {
  return OnWorker(*context, capturers_, kWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(const IncidentBundle bundle,
                                     incidents_.Capture(request->id()));
                    *response->mutable_bundle() = ToMessage(bundle);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* IncidentService::ReportIncident(
    grpc::CallbackServerContext* context, const operator_::v1::ReportIncidentRequest* request,
    operator_::v1::ReportIncidentResponse* response) {
  return OnWorker(
      *context, workers_, kWithin,
      [this, request, response](Deadline /*deadline*/) -> absl::Status {
        ASSIGN_OR_RETURN(const Incident incident, incidents_.Get(request->id()));
        ASSIGN_OR_RETURN(std::string text,
                         WriteReport(incident, audit_,
                                     request->format() == operator_::v1::REPORT_FORMAT_HTML
                                         ? ReportFormat::kHtml
                                         : ReportFormat::kMarkdown));
        if (text.size() > kMaxReport) {
          return absl::ResourceExhaustedError(
              "the report is longer than 3 MiB; creel audit show has what it would tell");
        }
        response->set_text(std::move(text));
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* IncidentService::ThawIncident(
    grpc::CallbackServerContext* context, const operator_::v1::ThawIncidentRequest* request,
    operator_::v1::ThawIncidentResponse* response) {
  return OnWorker(*context, workers_, kWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(const Incident incident, incidents_.Thaw(request->id()));
                    *response->mutable_incident() = ToMessage(incident);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* IncidentService::TeardownIncident(
    grpc::CallbackServerContext* context, const operator_::v1::TeardownIncidentRequest* request,
    operator_::v1::TeardownIncidentResponse* response) {
  return OnWorker(*context, workers_, kWithin,
                  [this, request, response](Deadline /*deadline*/) -> absl::Status {
                    ASSIGN_OR_RETURN(
                        const Incident incident,
                        incidents_.Teardown(request->id(), request->without_evidence()));
                    *response->mutable_incident() = ToMessage(incident);
                    return absl::OkStatus();
                  });
}

}  // namespace creel
