#include "supervisor/sandbox/sandbox.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/sandbox/container_check.h"
#include "supervisor/sandbox/container_spec.h"
#include "supervisor/sandbox/dir_tree.h"
#include "supervisor/sandbox/freezer.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/idle_pause.h"
#include "supervisor/sandbox/live_sandbox.h"
#include "supervisor/sandbox/opening.h"
#include "supervisor/sandbox/pooled_container.h"
#include "supervisor/sandbox/sandbox_paths.h"
#include "supervisor/sandbox/workspace.h"

namespace creel {
namespace {

using std::chrono::seconds;

constexpr seconds kCleanupTime{20};
// For an adopted container's shim to call again.
constexpr seconds kAdoptTime{5};
// For what tools left in a folder that only they may empty.
constexpr seconds kEmptyTime{30};

class Opening {
 public:
  Opening(const Sandbox::Host& host, SandboxIdentity& identity, Deadline deadline)
      : host_(host),
        identity_(identity),
        deadline_(deadline),
        paths_(SandboxPaths::For(host.config.paths, identity.id)) {}

  absl::StatusOr<std::shared_ptr<Sandbox>> Run() {
    RETURN_IF_ERROR(MakeSandboxFolders(host_.config.paths, paths_));
    // The engine is asked while the mounts are made.
    auto image = std::async(std::launch::async,
                            [this] { return FindImage(host_.engine, identity_.image, deadline_); });
    auto mounts = PrepareMounts(host_, identity_, paths_);
    auto found = image.get();
    if (!found.ok()) {
      return found.status();
    }
    if (!mounts.ok()) {
      return mounts.status();
    }
    identity_.tool_uid = mounts->tool_uid;
    identity_.tool_gid = mounts->tool_gid;
    identity_.workspace_bound = mounts->bound;
    identity_.shim_sha256 = host_.shim_sha256;
    const ContainerConfig config = MakeContainerConfig(host_, identity_, *found, *mounts);
    identity_.spec_hash = config.labels.at(kSpecLabel);

    auto sandbox = std::make_shared<LiveSandbox>(host_, identity_, /*first=*/true);
    RETURN_IF_ERROR(sandbox->Listen());
    ASSIGN_OR_RETURN(identity_.container_id, host_.engine.CreateContainer(config, deadline_));
    sandbox->SetIdentity(identity_);
    RETURN_IF_ERROR(Annotate(host_.engine.StartContainer(identity_.container_id, deadline_),
                             fmt::format("start container '{}'", config.name)));
    // While the shim comes up.
    if (host_.abilities.root) {
      RETURN_IF_ERROR(ReleaseMounts(paths_));
    }
    ASSIGN_OR_RETURN(const ContainerInfo info,
                     host_.engine.InspectContainer(identity_.container_id, deadline_));
    sandbox->SetContainer(info);
    RETURN_IF_ERROR(CheckContainer(info, config, host_.abilities, host_.config));
    if (absl::Status linked = sandbox->WaitForLink(deadline_); !linked.ok()) {
      return absl::UnavailableError(std::string(linked.message()));
    }
    sandbox->WatchWorkspace();
    return sandbox;
  }

 private:
  const Sandbox::Host& host_;
  SandboxIdentity& identity_;
  const Deadline deadline_;
  const SandboxPaths paths_;
};

absl::Status CheckIsOurs(const ContainerInfo& info, const Sandbox::Host& host,
                         const SandboxIdentity& identity) {
  const auto label = [&](const char* name) {
    const auto found = info.labels.find(name);
    return found == info.labels.end() ? std::string() : found->second;
  };
  if (label(kInstallLabel) != host.install_id || label(kSandboxLabel) != identity.id ||
      label(kSpecLabel) != identity.spec_hash) {
    return absl::FailedPreconditionError(
        fmt::format("container '{}' is not the one that was made: its labels differ",
                    ContainerName(identity.id)));
  }
  return absl::OkStatus();
}

// Removes all that is in the workspace, through the shim and so as the tools' user.
absl::Status EmptyWorkspace(Sandbox& sandbox, const std::string& workdir,
                            std::chrono::milliseconds patience) {
  ASSIGN_OR_RETURN(const auto stub, sandbox.shim());
  const auto until = std::chrono::system_clock::now() + patience;
  grpc::ClientContext list;
  list.set_deadline(until);
  shim::v1::ListDirectoryRequest request;
  request.mutable_args()->set_path(workdir);
  const auto reader = stub->ListDirectory(&list, request);
  std::vector<std::string> names;
  shim::v1::ListDirectoryResponse batch;
  while (reader->Read(&batch)) {
    for (const shim::v1::FileInfo& entry : batch.batch().entries()) {
      names.push_back(entry.path());
    }
  }
  grpc::Status status = reader->Finish();
  for (const std::string& name : names) {
    if (!status.ok()) {
      break;
    }
    grpc::ClientContext context;
    context.set_deadline(until);
    shim::v1::RemoveRequest remove;
    shim::v1::RemoveResponse removed;
    remove.mutable_args()->set_path(workdir + "/" + name);
    remove.mutable_args()->set_recursive(true);
    remove.mutable_args()->set_missing_ok(true);
    status = stub->Remove(&context, remove, &removed);
  }
  return status.ok() ? absl::OkStatus()
                     : absl::InternalError(Printable(status.error_message(), 512));
}

// What tools made in a folder that could not be given away belongs to a uid that is not ours. A
// fresh shim, in a container like the one that is gone, removes it as that uid; no tool runs in
// there.
absl::Status EmptyAsTools(const Sandbox::Host& host, const SandboxIdentity& identity,
                          Deadline deadline) {
  SandboxIdentity helper = identity;
  helper.key = RandomBytes(32);
  helper.container_id.clear();
  helper.workspace.clear();
  helper.access = WorkspaceAccess::kNone;
  // The folder may be what fills the disk.
  helper.limits.free_space_floor_bytes = 0;
  helper.limits.workspace_bytes = 1ull << 60;
  absl::Status emptied = absl::OkStatus();
  {
    const auto sandbox = Opening(host, helper, deadline).Run();
    emptied = sandbox.ok() ? EmptyWorkspace(**sandbox, host.config.sandbox.workdir, kEmptyTime)
                           : sandbox.status();
  }
  const absl::Status removed =
      host.engine.RemoveContainer(ContainerName(identity.id), After(kCleanupTime));
  return emptied.ok() ? removed : emptied;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Sandbox>> Sandbox::Create(const Host& host,
                                                         SandboxIdentity& identity,
                                                         Deadline deadline) {
  RETURN_IF_ERROR(CheckIdentity(identity, host.config, host.abilities));
  auto made = Opening(host, identity, deadline).Run();
  if (!made.ok()) {
    if (absl::Status removed = Remove(host, identity, After(kCleanupTime)); !removed.ok()) {
      return Annotate(made.status(),
                      fmt::format("what was made of sandbox '{}' could not be removed ({})",
                                  identity.id, std::string(removed.message())));
    }
  }
  return made;
}

absl::StatusOr<std::unique_ptr<PooledSandbox>> Sandbox::MakeAhead(const Host& host,
                                                                  SandboxIdentity& identity,
                                                                  Deadline deadline) {
  RETURN_IF_ERROR(CheckIdentity(identity, host.config, host.abilities));
  auto made = MakePooledContainer(host, identity, deadline);
  if (!made.ok()) {
    if (absl::Status removed = Remove(host, identity, After(kCleanupTime)); !removed.ok()) {
      return Annotate(made.status(),
                      fmt::format("what was made of sandbox '{}' could not be removed ({})",
                                  identity.id, std::string(removed.message())));
    }
  }
  return made;
}

absl::StatusOr<std::shared_ptr<Sandbox>> Sandbox::Adopt(const Host& host,
                                                        const SandboxIdentity& identity,
                                                        Deadline deadline) {
  {
    // Its memory may have been lowered since it was made, with its trust level.
    SandboxIdentity made = identity;
    FitToMemory(made.limits);
    RETURN_IF_ERROR(CheckIdentity(made, host.config, host.abilities));
  }
  const SandboxPaths paths = SandboxPaths::For(host.config.paths, identity.id);
  const std::string name = ContainerName(identity.id);
  ASSIGN_OR_RETURN(ContainerInfo info,
                   host.engine.InspectContainer(
                       identity.container_id.empty() ? name : identity.container_id, deadline));
  RETURN_IF_ERROR(CheckIsOurs(info, host, identity));
  if (info.state != ContainerState::kRunning && info.state != ContainerState::kPaused) {
    return absl::UnavailableError(
        fmt::format("container '{}' ended while no supervisor ran, with exit code {}{}", name,
                    info.exit_code, info.oom_killed ? " (out of memory)" : ""));
  }
  RETURN_IF_ERROR(MakeSandboxFolders(host.config.paths, paths));
  auto sandbox = std::make_shared<LiveSandbox>(host, identity, /*first=*/false);
  sandbox->SetContainer(info);
  RETURN_IF_ERROR(sandbox->Listen());
  auto hold = ReadHold(paths.hold);
  if (!hold.ok() && hold.status().code() != absl::StatusCode::kNotFound) {
    return hold.status();
  }
  if (!hold.ok()) {
    RETURN_IF_ERROR(IdlePause::Recover(host.engine, host.abilities, info.id, info.pid, paths.idle,
                                       info.state, deadline));
  }
  if (!hold.ok() && info.state == ContainerState::kPaused) {
    hold = Hold{.method = kFrozenByEngine, .reason = "it was paused while no supervisor ran"};
  }
  if (hold.ok()) {
    if (info.state == ContainerState::kRunning) {
      // Frozen through its group, or marked by a supervisor that did not come further.
      ASSIGN_OR_RETURN(hold->method,
                       FreezeContainer(host.engine, host.abilities, info.id, deadline));
    }
    if (hold->method == kKilled) {
      return absl::UnavailableError(
          fmt::format("container '{}' was to stay frozen, could not be, and was killed", name));
    }
    RETURN_IF_ERROR(WriteHold(paths.hold, *hold));
    sandbox->SetFrozen(*hold);
    sandbox->WatchWorkspace();
    return sandbox;
  }
  RETURN_IF_ERROR(sandbox->WaitForLink(std::min(deadline, After(kAdoptTime))));
  sandbox->WatchWorkspace();
  return sandbox;
}

absl::Status Sandbox::Remove(const Host& host, const SandboxIdentity& identity, Deadline deadline) {
  if (!IsSandboxId(identity.id)) {
    return absl::InvalidArgumentError(
        fmt::format("sandbox id '{}' is not 16 hexadecimal digits", Printable(identity.id, 64)));
  }
  const SandboxPaths paths = SandboxPaths::For(host.config.paths, identity.id);
  const std::string name = ContainerName(identity.id);
  if (ReadHold(paths.hold).ok() || IdlePause::Marked(paths.idle)) {
    (void)KillFrozenContainer(host.engine, host.abilities, name, deadline);
  }
  // By its name, as a creation that was cut short knows no id.
  absl::Status first = host.engine.RemoveContainer(name, deadline);
  if (!identity.container_id.empty()) {
    if (absl::Status by_id = host.engine.RemoveContainer(identity.container_id, deadline);
        first.ok()) {
      first = by_id;
    }
  }
  if (!first.ok()) {
    // Its workspace and socket are still in use.
    return Annotate(first, fmt::format("remove container '{}'", name));
  }
  absl::Status mounts = RemoveMounts(paths);
  if (mounts.code() == absl::StatusCode::kPermissionDenied && ::geteuid() != 0) {
    const absl::Status emptied = EmptyAsTools(host, identity, deadline);
    mounts = RemoveMounts(paths);
    if (!mounts.ok() && !emptied.ok()) {
      mounts = Annotate(mounts, fmt::format("what tools made, uid {}, could not be removed ({})",
                                            identity.tool_uid, std::string(emptied.message())));
    }
  }
  const size_t slash = paths.link_dir.rfind('/');
  const absl::Status link =
      RemoveTree(paths.link_dir.substr(0, slash), paths.link_dir.substr(slash + 1));
  return mounts.ok() ? link : mounts;
}

}  // namespace creel
