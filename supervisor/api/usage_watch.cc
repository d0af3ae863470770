#include "supervisor/api/usage_watch.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <memory>
#include <utility>

#include "supervisor/api/convert.h"
#include "supervisor/api/status_map.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kEvery{1};
constexpr std::chrono::seconds kMeasureWithin{5};
constexpr size_t kMaxSamples = 4096;
constexpr size_t kMaxLines = 1000;
constexpr size_t kMaxCommand = 1024;

class UsageWatch final : public grpc::ServerWriteReactor<operator_::v1::WatchUsageResponse>,
                         public std::enable_shared_from_this<UsageWatch> {
 public:
  UsageWatch(UsageMeter& meter, WorkerPool& workers, std::string session)
      : meter_(meter), workers_(workers), session_(std::move(session)) {}

  void Run() {
    self_ = shared_from_this();
    Tick();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (final_.has_value()) {
        Finish(*final_);
        return;
      }
      if (ok) {
        // Weak, as the alarm keeps its callback.
        next_.Set(std::chrono::system_clock::now() + kEvery, [weak = weak_from_this()](bool due) {
          const auto self = weak.lock();
          if (due && self != nullptr) {
            self->Tick();
          }
        });
        return;
      }
    }
    End({grpc::StatusCode::CANCELLED, "the caller went away"});
  }
  void OnCancel() override { End({grpc::StatusCode::CANCELLED, "the caller went away"}); }
  void OnDone() override { self_.reset(); }

 private:
  void Tick() {
    if (!workers_.Submit([self = shared_from_this()] { self->Measure(); })) {
      End({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many usages are watched at once; end some"});
    }
  }

  void Measure() {
    operator_::v1::WatchUsageResponse response;
    if (const absl::Status status = Fill(response); !status.ok()) {
      End(ToGrpc(status));
      return;
    }
    MutexLock lock(mu_);
    if (!final_.has_value()) {
      response_.Swap(&response);
      writing_ = true;
      StartWrite(&response_);
    }
  }

  absl::Status Fill(operator_::v1::WatchUsageResponse& response) {
    const Deadline deadline = After(kMeasureWithin);
    ASSIGN_OR_RETURN(const SessionView view, meter_.sessions().Get(session_));
    ASSIGN_OR_RETURN(*response.mutable_usage(), meter_.Measure(view, deadline));
    return meter_.AddProcesses(view, deadline, response);
  }

  void End(const grpc::Status& status) {
    MutexLock lock(mu_);
    if (final_.has_value()) {
      return;
    }
    final_ = status;
    if (!writing_) {
      Finish(status);
    }
  }

  UsageMeter& meter_;
  WorkerPool& workers_;
  const std::string session_;
  std::shared_ptr<UsageWatch> self_;  // until gRPC is done with the call
  Mutex mu_;
  operator_::v1::WatchUsageResponse response_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<grpc::Status> final_ ABSL_GUARDED_BY(mu_);
  grpc::Alarm next_;
};

}  // namespace

absl::StatusOr<operator_::v1::Usage> UsageMeter::Measure(const SessionView& view,
                                                         Deadline deadline) {
  const std::string& container = view.identity.container_id;
  ASSIGN_OR_RETURN(const ContainerStats now, engine_.Stats(container, deadline));
  operator_::v1::Usage usage;
  {
    MutexLock lock(mu_);
    const auto before = samples_.find(container);
    usage = ToMessage(now, before == samples_.end() ? nullptr : &before->second);
    if (before == samples_.end() && samples_.size() >= kMaxSamples) {
      samples_.clear();
    }
    samples_[container] = now;
  }
  if (const auto sandbox = sessions_.Find(view.session); sandbox.ok()) {
    usage.set_disk_bytes((*sandbox)->WorkspaceUsed());
  }
  if (view.identity.workspace_bound == "sized") {
    usage.set_disk_limit_bytes(view.identity.limits.workspace_bytes);
  }
  return usage;
}

absl::Status UsageMeter::AddProcesses(const SessionView& view, Deadline deadline,
                                      operator_::v1::WatchUsageResponse& response) {
  ASSIGN_OR_RETURN(const std::vector<ProcessRow> rows,
                   engine_.Top(view.identity.container_id, deadline));
  for (const ProcessRow& row : rows) {
    if (static_cast<size_t>(response.processes_size()) >= kMaxLines) {
      break;
    }
    operator_::v1::ProcessLine& line = *response.add_processes();
    line.set_pid(row.pid);
    line.set_uid(row.uid);
    line.set_command(Printable(row.command, kMaxCommand));
  }
  return absl::OkStatus();
}

grpc::ServerWriteReactor<operator_::v1::WatchUsageResponse>* ServeWatchUsage(
    UsageMeter& meter, WorkerPool& workers, const std::string& session) {
  auto watch = std::make_shared<UsageWatch>(meter, workers, session);
  watch->Run();
  return watch.get();
}

}  // namespace creel
