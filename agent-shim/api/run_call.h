#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "agent-shim/exec/process.h"
#include "agent-shim/exec/process_table.h"
#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/mutex.h"

namespace creel::shim {

grpc::Status ToGrpc(const absl::Status& status);

// One Run call: one process's output on its way to the supervisor, and input on its way back. Keeps
// itself alive until gRPC is done with it.
class RunCall final : public grpc::ServerBidiReactor<v1::RunRequest, v1::RunResponse>,
                      public ProcessReader,
                      public std::enable_shared_from_this<RunCall> {
 public:
  // `table` must outlive the call.
  static RunCall* Begin(ProcessTable& table);

  // ProcessReader:
  void Wake() override;

  // grpc::ServerBidiReactor:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit RunCall(ProcessTable& table) : table_(table) {}
  void TakeFirst();
  void TakeInput();
  void ReadMore();
  // Writes what comes next, unless a write is under way.
  void Pump();
  void FinishLocked(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  ProcessTable& table_;
  std::shared_ptr<RunCall> self_;     // given up in OnDone
  v1::RunRequest request_;            // only one read is under way at a time
  std::shared_ptr<Process> process_;  // set by the first read, before anything else uses it
  // Input is read once the first event is out, and not while the command is being started: gRPC
  // tells the peer of every read that begins, and that would wake it at the worst moment. Of
  // OnWriteDone.
  bool reads_input_ = false;

  Mutex mu_;
  bool begun_ ABSL_GUARDED_BY(mu_) = false;  // `process_` is set
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool has_info_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t offset_ ABSL_GUARDED_BY(mu_) = 0;
  // What is being written, kept until it has been.
  std::shared_ptr<const v1::RunResponse> in_flight_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel::shim
