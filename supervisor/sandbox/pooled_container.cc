#include "supervisor/sandbox/pooled_container.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <future>
#include <string>
#include <utility>

#include "supervisor/sandbox/cgroups.h"
#include "supervisor/sandbox/container_check.h"
#include "supervisor/sandbox/container_spec.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/live_sandbox.h"
#include "supervisor/sandbox/mount_calls.h"
#include "supervisor/sandbox/opening.h"
#include "supervisor/sandbox/sandbox_paths.h"
#include "supervisor/sandbox/workspace.h"

namespace creel {
namespace {

// What the supervisor keeps for one, and what is taken for what cannot be seen.
constexpr uint64_t kOwnBytes = 256u << 10;
constexpr uint64_t kUnseenBytes = 12u << 20;

bool OwnWorkspace(const SandboxIdentity& identity) {
  return identity.workspace.empty() || identity.access == WorkspaceAccess::kNone;
}

// A value of /proc/PID/status or smaps_rollup, in KiB; 0: it is not told.
uint64_t ProcKilobytes(int pid, const char* file, const std::string& field) {
  std::ifstream lines(fmt::format("/proc/{}/{}", pid, file));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(field + ":", 0) == 0) {
      return std::strtoull(line.c_str() + field.size() + 1, nullptr, 10);
    }
  }
  return 0;
}

// The container's own, and that of the engine's process which is its parent.
uint64_t MemoryOf(const ContainerInfo& info, const HostAbilities& abilities) {
  if (!SeesProcessOf(info)) {
    return kUnseenBytes;
  }
  const auto groups = ContainerCgroups::OfProcess(info.pid, abilities.cgroup_root);
  const auto used = groups.ok() ? groups->MemoryUsed() : groups.status();
  const auto parent = static_cast<int>(ProcKilobytes(info.pid, "status", "PPid"));
  const uint64_t keeper = (ProcKilobytes(parent, "smaps_rollup", "Private_Clean") +
                           ProcKilobytes(parent, "smaps_rollup", "Private_Dirty")) *
                          1024;
  if (!used.ok() || parent <= 1 || keeper == 0) {
    return kUnseenBytes;
  }
  return *used + keeper + kOwnBytes;
}

class PooledContainer final : public PooledSandbox {
 public:
  PooledContainer(const Sandbox::Host& host, const SandboxIdentity& identity)
      : host_(host),
        identity_(identity),
        paths_(SandboxPaths::For(host.config.paths, identity.id)),
        // What is mounted later is seen where the container uses the host's kernel, and can be
        // mounted by root. Not from within a container, where the run folder is a mount of its own:
        // the copy outside is the one the engine ties to, and nobody in here could cut that again.
        late_(host.abilities.root && !host.abilities.engine_elsewhere &&
              !IsMountPoint(host.config.paths.run_dir) &&
              KindOfRuntime(identity.runtime.empty() ? host.abilities.default_runtime
                                                     : identity.runtime) == RuntimeKind::kNative) {}

  absl::Status Make(Deadline deadline) {
    RETURN_IF_ERROR(MakeSandboxFolders(host_.config.paths, paths_));
    auto image = std::async(std::launch::async, [this, deadline] {
      return FindImage(host_.engine, identity_.image, deadline);
    });
    auto mounts = PrepareMountsAhead(host_, identity_, paths_, late_);
    auto found = image.get();
    RETURN_IF_ERROR(found.status());
    RETURN_IF_ERROR(mounts.status());
    image_id_ = found->id;
    identity_.workspace_bound = mounts->bound;
    identity_.shim_sha256 = host_.shim_sha256;
    const ContainerConfig config = MakeContainerConfig(host_, identity_, *found, *mounts);
    identity_.spec_hash = config.labels.at(kSpecLabel);
    sandbox_ = std::make_shared<LiveSandbox>(host_, identity_, /*first=*/true, /*ahead=*/true);
    RETURN_IF_ERROR(sandbox_->Listen());
    ASSIGN_OR_RETURN(identity_.container_id, host_.engine.CreateContainer(config, deadline));
    sandbox_->SetIdentity(identity_);
    RETURN_IF_ERROR(Annotate(host_.engine.StartContainer(identity_.container_id, deadline),
                             fmt::format("start container '{}'", config.name)));
    if (host_.abilities.root) {
      RETURN_IF_ERROR(late_ ? ReleaseMountsAhead(paths_) : ReleaseMounts(paths_));
    }
    ASSIGN_OR_RETURN(const ContainerInfo info,
                     host_.engine.InspectContainer(identity_.container_id, deadline));
    sandbox_->SetContainer(info);
    RETURN_IF_ERROR(CheckContainer(info, config, host_.abilities, host_.config));
    RETURN_IF_ERROR(sandbox_->WaitForLink(deadline));
    if (late_ && !SeesProcessOf(info)) {
      return absl::FailedPreconditionError(
          "the container's first process is not to be seen from here, so that it could not be made "
          "sure that a workspace reaches it");
    }
    pid_ = info.pid;
    memory_bytes_ = MemoryOf(info, host_.abilities);
    return absl::OkStatus();
  }

  [[nodiscard]] const SandboxIdentity& identity() const override { return identity_; }
  [[nodiscard]] bool ready() const override { return sandbox_ != nullptr && sandbox_->waiting(); }
  [[nodiscard]] bool Serves(const SandboxIdentity& wanted) const override {
    return wanted.image == identity_.image && wanted.runtime == identity_.runtime &&
           wanted.limits == identity_.limits && (late_ || OwnWorkspace(wanted));
  }
  [[nodiscard]] const std::string& image_id() const override { return image_id_; }
  [[nodiscard]] uint64_t memory_bytes() const override { return memory_bytes_; }

  absl::StatusOr<std::shared_ptr<Sandbox>> Claim(SandboxIdentity& identity,
                                                 Deadline deadline) override {
    RETURN_IF_ERROR(CheckIdentity(identity, host_.config, host_.abilities));
    if (sandbox_ == nullptr || identity.id != identity_.id || !Serves(identity)) {
      return absl::InvalidArgumentError("this container was made for something else");
    }
    if (late_) {
      ASSIGN_OR_RETURN(const PreparedMounts mounts, MountLate(host_, identity, paths_, pid_));
      identity.tool_uid = mounts.tool_uid;
      identity.tool_gid = mounts.tool_gid;
      identity.workspace_bound = mounts.bound;
    }
    std::shared_ptr<LiveSandbox> sandbox = std::move(sandbox_);
    if (absl::Status begun = sandbox->Begin(identity, deadline); !begun.ok()) {
      return absl::UnavailableError(std::string(begun.message()));
    }
    sandbox->WatchWorkspace();
    return sandbox;
  }

 private:
  const Sandbox::Host& host_;
  SandboxIdentity identity_;
  const SandboxPaths paths_;
  const bool late_;
  std::string image_id_;
  int pid_ = 0;
  uint64_t memory_bytes_ = 0;
  std::shared_ptr<LiveSandbox> sandbox_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PooledSandbox>> MakePooledContainer(const Sandbox::Host& host,
                                                                   SandboxIdentity& identity,
                                                                   Deadline deadline) {
  auto pooled = std::make_unique<PooledContainer>(host, identity);
  const absl::Status made = pooled->Make(deadline);
  identity = pooled->identity();
  RETURN_IF_ERROR(made);
  return pooled;
}

}  // namespace creel
