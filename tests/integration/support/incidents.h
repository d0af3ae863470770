#pragma once

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "creel/operator/v1/incident.grpc.pb.h"
#include "creel/operator/v1/record.grpc.pb.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {

// The operator's incident and record services of a supervisor.
class Operators {
 public:
  explicit Operators(const Supervisor& supervisor)
      : incidents_(operator_::v1::Incidents::NewStub(supervisor.OperatorChannel())),
        record_(operator_::v1::Record::NewStub(supervisor.OperatorChannel())) {}

  std::pair<grpc::Status, operator_::v1::OpenIncidentResponse> Open(
      const operator_::v1::OpenIncidentRequest& request) {
    return Call<operator_::v1::OpenIncidentResponse>(&operator_::v1::Incidents::Stub::OpenIncident,
                                                     *incidents_, request);
  }
  std::pair<grpc::Status, operator_::v1::Incident> Get(const std::string& id) {
    operator_::v1::GetIncidentRequest request;
    request.set_id(id);
    auto [status, response] = Call<operator_::v1::GetIncidentResponse>(
        &operator_::v1::Incidents::Stub::GetIncident, *incidents_, request);
    return {status, response.incident()};
  }
  std::pair<grpc::Status, operator_::v1::Bundle> Capture(const std::string& id) {
    operator_::v1::CaptureIncidentRequest request;
    request.set_id(id);
    auto [status, response] = Call<operator_::v1::CaptureIncidentResponse>(
        &operator_::v1::Incidents::Stub::CaptureIncident, *incidents_, request);
    return {status, response.bundle()};
  }
  grpc::Status Thaw(const std::string& id) {
    operator_::v1::ThawIncidentRequest request;
    request.set_id(id);
    return Call<operator_::v1::ThawIncidentResponse>(&operator_::v1::Incidents::Stub::ThawIncident,
                                                     *incidents_, request)
        .first;
  }
  grpc::Status Teardown(const std::string& id, bool without_evidence = false) {
    operator_::v1::TeardownIncidentRequest request;
    request.set_id(id);
    request.set_without_evidence(without_evidence);
    return Call<operator_::v1::TeardownIncidentResponse>(
               &operator_::v1::Incidents::Stub::TeardownIncident, *incidents_, request)
        .first;
  }
  operator_::v1::VerifyRecordResponse Verify() {
    return Call<operator_::v1::VerifyRecordResponse>(&operator_::v1::Record::Stub::VerifyRecord,
                                                     *record_, operator_::v1::VerifyRecordRequest())
        .second;
  }
  // Lines of the record, as they stand.
  std::vector<std::string> Lines(const operator_::v1::ReadRecordRequest& request = {}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    const auto reader = record_->ReadRecord(&context, request);
    std::vector<std::string> lines;
    operator_::v1::ReadRecordResponse response;
    while (reader->Read(&response)) {
      for (const auto& line : response.lines()) {
        lines.push_back(line.json());
      }
    }
    static_cast<void>(reader->Finish());
    return lines;
  }

 private:
  template <typename Response, typename Stub, typename Request>
  static std::pair<grpc::Status, Response> Call(grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                             const Request&,
                                                                             Response*),
                                                Stub& stub, const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(300));
    Response response;
    grpc::Status status = (stub.*method)(&context, request, &response);
    return {std::move(status), std::move(response)};
  }

  std::unique_ptr<operator_::v1::Incidents::Stub> incidents_;
  std::unique_ptr<operator_::v1::Record::Stub> record_;
};

inline operator_::v1::OpenIncidentRequest About(const std::string& session,
                                                bool without_capture = true) {
  operator_::v1::OpenIncidentRequest request;
  if (session.empty()) {
    request.set_all(true);
  } else {
    request.set_session(session);
  }
  request.set_reason("a test of what happens when something goes wrong");
  request.set_without_capture(without_capture);
  return request;
}

// By how much a bar may be missed on a machine that does something else beside; with CREEL_STRICT
// (`make campaign`) the bars are what they are.
inline double Slack() { return std::getenv("CREEL_STRICT") != nullptr ? 1 : 3; }

inline std::chrono::duration<double> ToSeconds(const google::protobuf::Duration& took) {
  return std::chrono::duration<double>(static_cast<double>(took.seconds()) +
                                       static_cast<double>(took.nanos()) / 1e9);
}

}  // namespace creel::testing
