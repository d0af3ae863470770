#include "supervisor/api/sandbox_meter.h"

#include <utility>

#include "supervisor/api/convert.h"
#include "supervisor/sandbox/container_check.h"

namespace creel {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kFresh{900};
constexpr char kCgroups[] = "/sys/fs/cgroup";
// Of one round: what asks the engine, once for each container; what waits for it to measure; and
// what walks through folders.
constexpr int kInspectTurns = 25;
constexpr int kStatsTurns = 4;
constexpr int kTreeTurns = 1;
constexpr std::chrono::seconds kAskEngineEvery{5};
constexpr std::chrono::seconds kSizedEvery{4};
constexpr std::chrono::seconds kTreeEvery{60};

}  // namespace

operator_::v1::ListUsageResponse SandboxMeter::Measure(Deadline deadline) {
  MutexLock lock(mu_);
  const auto now = steady_clock::now();
  if (now - measured_at_ < kFresh) {
    return newest_;
  }
  operator_::v1::ListUsageResponse response;
  inspect_turns_ = kInspectTurns;
  stats_turns_ = kStatsTurns;
  tree_turns_ = kTreeTurns;
  for (auto& [id, known] : known_) {
    known.seen = false;
  }
  for (const SessionView& view : sessions_.List()) {
    if (view.identity.container_id.empty()) {
      continue;
    }
    Known& known = known_[view.identity.container_id];
    known.seen = true;
    if (MeasureOne(view, known, deadline)) {
      operator_::v1::SandboxUsage& message = *response.add_sandboxes();
      message.set_sandbox_id(view.identity.id);
      *message.mutable_usage() = known.usage;
    }
  }
  std::erase_if(known_, [](const auto& each) { return !each.second.seen; });
  measured_at_ = now;
  newest_ = response;
  return response;
}

bool SandboxMeter::MeasureOne(const SessionView& view, Known& known, Deadline deadline) {
  if (!known.info && inspect_turns_ > 0 && steady_clock::now() < deadline) {
    --inspect_turns_;
    if (auto info = engine_.InspectContainer(view.identity.container_id, deadline);
        info.ok() && info->pid > 0) {
      info->json.clear();
      // Only a process that is the container's tells of it.
      if (SeesProcessOf(*info)) {
        if (auto groups = ContainerCgroups::OfProcess(info->pid, kCgroups); groups.ok()) {
          known.groups = *std::move(groups);
        }
      }
      known.info = *std::move(info);
    }
  }
  const bool measured = FromGroups(known) || FromEngine(view, known, deadline);
  if (measured || known.usage.has_at()) {
    MeasureDisk(view, known);
    known.usage.set_memory_limit_bytes(view.identity.limits.memory_bytes);
    known.usage.set_processes_limit(view.identity.limits.pids);
    if (view.identity.workspace_bound == "sized") {
      known.usage.set_disk_limit_bytes(view.identity.limits.workspace_bytes);
    }
    return true;
  }
  return false;
}

bool SandboxMeter::FromGroups(Known& known) {
  if (!known.groups) {
    return false;
  }
  ContainerStats now;
  now.at = std::chrono::system_clock::now();
  const auto cpu = known.groups->CpuUsed();
  const auto memory = known.groups->MemoryUsed();
  const auto pids = known.groups->Pids();
  if (!cpu.ok() || !memory.ok() || !pids.ok()) {
    // The container may run anew, as another process.
    known.groups.reset();
    known.info.reset();
    return false;
  }
  now.cpu_total_ns = static_cast<uint64_t>(cpu->count());
  now.memory_bytes = *memory;
  now.pids = *pids;
  const uint64_t disk = known.usage.disk_bytes();
  const bool first = known.last.cpu_total_ns == 0;
  known.usage = ToMessage(now, first ? nullptr : &known.last);
  known.usage.set_disk_bytes(disk);
  known.last = now;
  return true;
}

bool SandboxMeter::FromEngine(const SessionView& view, Known& known, Deadline deadline) {
  const auto now = steady_clock::now();
  if (stats_turns_ <= 0 || now - known.asked_at < kAskEngineEvery || now >= deadline) {
    return false;
  }
  --stats_turns_;
  known.asked_at = now;
  const auto stats = engine_.Stats(view.identity.container_id, deadline);
  if (!stats.ok()) {
    return false;
  }
  const uint64_t disk = known.usage.disk_bytes();
  const bool first = known.last.cpu_total_ns == 0;
  known.usage = ToMessage(*stats, first ? nullptr : &known.last);
  known.usage.set_disk_bytes(disk);
  known.last = *stats;
  return true;
}

void SandboxMeter::MeasureDisk(const SessionView& view, Known& known) {
  const bool sized = view.identity.workspace_bound == "sized";
  const auto now = steady_clock::now();
  if (now - known.disk_at < (sized ? std::chrono::seconds(kSizedEvery) : kTreeEvery)) {
    return;
  }
  if (sized && known.info) {
    known.disk_at = now;
    known.usage.set_disk_bytes(BytesUsedAt(*known.info, workdir_));
    return;
  }
  if (!sized && tree_turns_ > 0) {
    --tree_turns_;
    known.disk_at = now;
    if (const auto sandbox = sessions_.Find(view.session); sandbox.ok()) {
      known.usage.set_disk_bytes((*sandbox)->WorkspaceUsed());
    }
  }
}

}  // namespace creel
