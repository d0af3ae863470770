#include "supervisor/api/convert.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdint>

#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kMaxEnvBytes = 64u << 10;

gateway::v1::SessionState ToMessage(SessionState state) {
  switch (state) {
    case SessionState::kOpening:
      return gateway::v1::SESSION_STATE_OPENING;
    case SessionState::kRunning:
      return gateway::v1::SESSION_STATE_RUNNING;
    case SessionState::kFrozen:
      return gateway::v1::SESSION_STATE_FROZEN;
    case SessionState::kLost:
      return gateway::v1::SESSION_STATE_LOST;
    case SessionState::kClosing:
      return gateway::v1::SESSION_STATE_CLOSING;
  }
  return gateway::v1::SESSION_STATE_UNSPECIFIED;
}

gateway::v1::WorkspaceAccess ToMessage(WorkspaceAccess access) {
  switch (access) {
    case WorkspaceAccess::kNone:
      return gateway::v1::WORKSPACE_ACCESS_NONE;
    case WorkspaceAccess::kReadOnly:
      return gateway::v1::WORKSPACE_ACCESS_READ_ONLY;
    case WorkspaceAccess::kReadWrite:
      return gateway::v1::WORKSPACE_ACCESS_READ_WRITE;
  }
  return gateway::v1::WORKSPACE_ACCESS_UNSPECIFIED;
}

std::string Bytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (unit + 1 < std::size(kUnits) && bytes != 0 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{} {}", bytes, kUnits[unit]);
}

std::string Rate(uint64_t bytes) { return bytes == 0 ? "not limited" : Bytes(bytes) + " a second"; }

}  // namespace

google::protobuf::Timestamp ToTimestamp(std::chrono::system_clock::time_point at) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(at);
  google::protobuf::Timestamp message;
  message.set_seconds(seconds.time_since_epoch().count());
  message.set_nanos(static_cast<int32_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(at - seconds).count()));
  return message;
}

gateway::v1::Session ToMessage(const SessionView& view, const std::string& workdir) {
  gateway::v1::Session session;
  session.set_session(view.session);
  session.set_sandbox_id(view.identity.id);
  session.set_state(ToMessage(view.state));
  session.set_sender(view.sender);
  *session.mutable_opened_at() = ToTimestamp(view.opened_at);
  *session.mutable_last_call_at() = ToTimestamp(view.last_call_at);
  session.set_image(view.identity.image);
  session.set_runtime(view.identity.runtime);
  session.set_workspace_access(ToMessage(view.identity.access));
  session.set_workspace(view.identity.workspace);
  session.set_workdir(workdir);
  session.set_container_id(view.identity.container_id);
  session.set_processes(view.processes);
  session.set_reason(Printable(view.reason, 1024));
  session.set_trust_level(view.trust_level);
  return session;
}

absl::StatusOr<OpenOptions> FromMessage(const gateway::v1::OpenSessionRequest& request) {
  OpenOptions options;
  options.session = request.context().session();
  options.sender = request.context().sender();
  options.workspace = request.workspace();
  switch (request.workspace_access()) {
    case gateway::v1::WORKSPACE_ACCESS_UNSPECIFIED:
      break;
    case gateway::v1::WORKSPACE_ACCESS_NONE:
      options.access = WorkspaceAccess::kNone;
      break;
    case gateway::v1::WORKSPACE_ACCESS_READ_ONLY:
      options.access = WorkspaceAccess::kReadOnly;
      break;
    case gateway::v1::WORKSPACE_ACCESS_READ_WRITE:
      options.access = WorkspaceAccess::kReadWrite;
      break;
    default:
      return absl::InvalidArgumentError("`workspace_access` is none that this version knows");
  }
  if (options.workspace.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("`workspace` holds a NUL byte");
  }
  size_t bytes = 0;
  for (const auto& [name, value] : request.env()) {
    if (name.empty() || name.find('=') != std::string::npos ||
        name.find('\0') != std::string::npos || value.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          fmt::format("the variable '{}' has no proper name, or holds NUL", Printable(name, 64)));
    }
    bytes += name.size() + value.size();
    options.env.emplace(name, value);
  }
  if (bytes > kMaxEnvBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "the variables have {} bytes in all and at most {} are taken; write them to a file", bytes,
        kMaxEnvBytes));
  }
  return options;
}

google::protobuf::Map<std::string, std::string> Limits(const LimitsConfig& limits) {
  google::protobuf::Map<std::string, std::string> map;
  map["memory"] = Bytes(limits.memory_bytes);
  map["cpus"] = fmt::format("{}", limits.cpus);
  map["processes"] = fmt::format("{}", limits.pids);
  map["open files"] = fmt::format("{}", limits.open_files);
  map["/tmp"] = Bytes(limits.tmp_bytes);
  map["/run"] = Bytes(limits.run_bytes);
  map["/dev/shm"] = Bytes(limits.shm_bytes);
  map["workspace"] = Bytes(limits.workspace_bytes);
  map["block I/O weight"] = fmt::format("{}", limits.blkio_weight);
  map["reading"] = Rate(limits.read_bps);
  map["writing"] = Rate(limits.write_bps);
  map["output kept per process"] = Bytes(limits.spool_bytes);
  return map;
}

operator_::v1::Usage ToMessage(const ContainerStats& now, const ContainerStats* before) {
  operator_::v1::Usage usage;
  *usage.mutable_at() = ToTimestamp(now.at);
  if (before != nullptr && now.at > before->at && now.cpu_total_ns >= before->cpu_total_ns) {
    const auto wall =
        std::chrono::duration_cast<std::chrono::nanoseconds>(now.at - before->at).count();
    usage.set_cpu_percent(100.0 * static_cast<double>(now.cpu_total_ns - before->cpu_total_ns) /
                          static_cast<double>(wall));
  }
  usage.set_memory_bytes(now.memory_bytes);
  usage.set_memory_limit_bytes(now.memory_limit_bytes);
  usage.set_processes(static_cast<uint32_t>(now.pids));
  usage.set_processes_limit(static_cast<uint32_t>(now.pids_limit));
  return usage;
}

}  // namespace creel
