#include "supervisor/api/usage_watch.h"

#include <chrono>
#include <memory>
#include <utility>

#include "supervisor/api/convert.h"
#include "supervisor/api/status_map.h"
#include "supervisor/api/stream_writer.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kEvery{1};
constexpr std::chrono::seconds kMeasureWithin{5};
constexpr size_t kMaxSamples = 4096;
constexpr size_t kMaxLines = 1000;
constexpr size_t kMaxCommand = 1024;

class UsageWatch final : public StreamWriter<operator_::v1::WatchUsageResponse> {
 public:
  UsageWatch(UsageMeter& meter, WorkerPool& workers, std::string session)
      : meter_(meter), workers_(workers), session_(std::move(session)) {}

  void Begin() override {
    if (!workers_.Submit([self = shared_from_this(), this] { Measure(); })) {
      End({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many usages are watched at once; end some"});
    }
  }
  void OnTaken() override { Later(kEvery); }
  void OnTime() override { Begin(); }

 private:
  void Measure() {
    operator_::v1::WatchUsageResponse response;
    if (const absl::Status status = Fill(response); status.ok()) {
      Write(response);
    } else {
      End(ToGrpc(status));
    }
  }

  absl::Status Fill(operator_::v1::WatchUsageResponse& response) {
    const Deadline deadline = After(kMeasureWithin);
    ASSIGN_OR_RETURN(const SessionView view, meter_.sessions().Get(session_));
    ASSIGN_OR_RETURN(*response.mutable_usage(), meter_.Measure(view, deadline));
    return meter_.AddProcesses(view, deadline, response);
  }

  UsageMeter& meter_;
  WorkerPool& workers_;
  const std::string session_;
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
