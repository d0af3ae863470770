#pragma once

#include "creel/operator/v1/record.grpc.pb.h"
#include "supervisor/api/worker_pool.h"
#include "supervisor/audit/audit_log.h"

namespace creel {

// creel.operator.v1.Record: what the operator reads of the record. Thread-safe.
class RecordService final : public operator_::v1::Record::CallbackService {
 public:
  // `audit` must outlive the service.
  explicit RecordService(AuditLog& audit) : audit_(audit) {}

  grpc::ServerWriteReactor<operator_::v1::ReadRecordResponse>* ReadRecord(
      grpc::CallbackServerContext* context,
      const operator_::v1::ReadRecordRequest* request) override;
  grpc::ServerUnaryReactor* VerifyRecord(grpc::CallbackServerContext* context,
                                         const operator_::v1::VerifyRecordRequest* request,
                                         operator_::v1::VerifyRecordResponse* response) override;
  grpc::ServerUnaryReactor* GetRecordKey(grpc::CallbackServerContext* context,
                                         const operator_::v1::GetRecordKeyRequest* request,
                                         operator_::v1::GetRecordKeyResponse* response) override;

 private:
  AuditLog& audit_;
  WorkerPool readers_{4};
  WorkerPool verifiers_{1};
};

}  // namespace creel
