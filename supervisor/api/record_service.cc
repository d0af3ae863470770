#include "supervisor/api/record_service.h"

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "supervisor/api/on_worker.h"
#include "supervisor/api/status_map.h"
#include "supervisor/api/stream_writer.h"
#include "supervisor/audit/audit_query.h"
#include "supervisor/audit/line.h"
#include "supervisor/audit/verify.h"

namespace creel {
namespace {

constexpr std::chrono::milliseconds kLookEvery{200};
constexpr std::chrono::minutes kVerifyWithin{30};
constexpr int kMaxLines = 500;
constexpr size_t kMaxBytes = 512u << 10;

void AddLine(std::string_view line, operator_::v1::ReadRecordResponse& response) {
  operator_::v1::RecordLine& message = *response.add_lines();
  message.set_json(std::string(line));
  for (auto& [key, value] : FieldsOf(line)) {
    operator_::v1::RecordField& field = *message.add_fields();
    field.set_key(std::move(key));
    field.set_value(std::move(value));
  }
}

AuditQuery QueryOf(const AuditLog& audit, const operator_::v1::ReadRecordRequest& request) {
  AuditQuery query{.session = request.session(),
                   .sender = request.sender(),
                   .sandbox = request.sandbox(),
                   .tool = request.tool(),
                   .verdict = request.verdict(),
                   .incident = request.incident(),
                   .event = request.event(),
                   .since = request.since(),
                   .until = request.until()};
  query.FindMasked(audit);
  return query;
}

// Lines as they are asked for, one message after the other was taken.
class RecordStream final : public StreamWriter<operator_::v1::ReadRecordResponse> {
 public:
  RecordStream(const AuditLog& audit, WorkerPool& workers,
               const operator_::v1::ReadRecordRequest& request)
      : workers_(workers),
        reader_(audit.directory(), QueryOf(audit, request)),
        limit_(request.limit()),
        follow_(request.follow()) {}

  void Begin() override {
    if (!workers_.Submit([self = shared_from_this(), this] { Step(); })) {
      End({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many read the record at once; end some"});
    }
  }
  void OnTaken() override { Begin(); }
  void OnTime() override { Begin(); }

 private:
  // One at a time: the next begins when this one's message was taken, or its alarm went off.
  void Step() {
    operator_::v1::ReadRecordResponse response;
    const absl::StatusOr<bool> more = Fill(response);
    if (!more.ok()) {
      End(ToGrpc(more.status()));
      return;
    }
    if (response.lines_size() > 0) {
      Write(response);
    } else if (follow_) {
      Later(kLookEvery);
    } else {
      End(grpc::Status::OK);
    }
  }

  absl::StatusOr<bool> Fill(operator_::v1::ReadRecordResponse& response) {
    if (limit_ > 0 && !looked_back_) {
      looked_back_ = true;
      while (true) {
        ASSIGN_OR_RETURN(const std::optional<std::string_view> line, reader_.Next());
        if (!line) {
          break;
        }
        newest_.emplace_back(*line);
        if (newest_.size() > limit_) {
          newest_.pop_front();
        }
      }
    }
    size_t bytes = 0;
    while (response.lines_size() < kMaxLines && bytes < kMaxBytes) {
      if (!newest_.empty()) {
        bytes += newest_.front().size();
        AddLine(newest_.front(), response);
        newest_.pop_front();
        continue;
      }
      if (limit_ > 0 && !follow_) {
        break;
      }
      ASSIGN_OR_RETURN(const std::optional<std::string_view> line, reader_.Next());
      if (!line) {
        break;
      }
      bytes += line->size();
      AddLine(*line, response);
    }
    return true;
  }

  WorkerPool& workers_;
  // Of the one Step that runs.
  AuditReader reader_;
  const uint32_t limit_;
  const bool follow_;
  bool looked_back_ = false;
  std::deque<std::string> newest_;
};

}  // namespace

grpc::ServerWriteReactor<operator_::v1::ReadRecordResponse>* RecordService::ReadRecord(
    grpc::CallbackServerContext* /*context*/, const operator_::v1::ReadRecordRequest* request) {
  auto stream = std::make_shared<RecordStream>(audit_, readers_, *request);
  stream->Run();
  return stream.get();
}

grpc::ServerUnaryReactor* RecordService::VerifyRecord(
    grpc::CallbackServerContext* context, const operator_::v1::VerifyRecordRequest* /*request*/,
    operator_::v1::VerifyRecordResponse* response) {
  return OnWorker(*context, verifiers_, kVerifyWithin,
                  [this, response](Deadline /*deadline*/) -> absl::Status {
                    // What is known to have been written now must be found.
                    VerifyOptions options;
                    options.head = audit_.head();
                    options.public_keys = {audit_.key().public_key()};
                    ASSIGN_OR_RETURN(const VerifyReport report,
                                     creel::VerifyRecord(audit_.directory(), options));
                    response->set_sound(report.sound);
                    response->set_records(report.records);
                    response->set_first_seq(report.first_seq);
                    response->set_last_seq(report.last_seq);
                    response->set_last_hash(report.last_hash);
                    response->set_checkpoints(report.checkpoints);
                    response->set_last_checkpoint(report.last_checkpoint);
                    response->set_bad_seq(report.bad_seq);
                    response->set_file(report.file);
                    response->set_line(report.line);
                    response->set_problem(report.problem);
                    for (const std::string& note : report.notes) {
                      response->add_notes(note);
                    }
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* RecordService::GetRecordKey(
    grpc::CallbackServerContext* context, const operator_::v1::GetRecordKeyRequest* /*request*/,
    operator_::v1::GetRecordKeyResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  response->set_public_key(PublicKeyPem(audit_.key().public_key()));
  response->set_key_id(KeyId(audit_.key().public_key()));
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace creel
