#include "supervisor/daemon/removal.h"

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "supervisor/engine/docker_engine.h"
#include "supervisor/sandbox/container_spec.h"
#include "supervisor/sandbox/dir_tree.h"
#include "supervisor/sandbox/freezer.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/mount_calls.h"
#include "supervisor/sandbox/sandbox_paths.h"
#include "supervisor/store/store.h"

namespace creel {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

std::vector<std::string> SandboxIdsIn(const std::string& folder) {
  std::vector<std::string> ids;
  const std::unique_ptr<DIR, CloseDir> dir(::opendir(folder.c_str()));
  while (const dirent* entry = dir == nullptr ? nullptr : ::readdir(dir.get())) {
    if (IsSandboxId(entry->d_name)) {
      ids.emplace_back(entry->d_name);
    }
  }
  return ids;
}

// All is tried; the first failure is told.
class FirstFailure {
 public:
  void Note(absl::Status status) {
    if (status_.ok()) {
      status_ = std::move(status);
    }
  }
  [[nodiscard]] absl::Status status() const { return status_; }

 private:
  absl::Status status_;
};

absl::Status RemoveFolders(const PathsConfig& paths) {
  FirstFailure failure;
  if (::geteuid() == 0) {
    for (const std::string& id : SandboxIdsIn(paths.run_dir + "/mounts")) {
      const SandboxPaths of = SandboxPaths::For(paths, id);
      failure.Note(DetachMounts(of.slot));
      failure.Note(RemoveTree(paths.run_dir + "/mounts", id));
    }
  }
  for (const std::string& parent : {paths.run_dir, paths.state_dir}) {
    if (::access((parent + "/sandboxes").c_str(), F_OK) == 0) {
      failure.Note(RemoveTree(parent, "sandboxes"));
    }
  }
  const std::string spool = SpoolDir(paths);
  const size_t slash = spool.rfind('/');
  if (::access(spool.c_str(), F_OK) == 0) {
    failure.Note(RemoveTree(spool.substr(0, slash), spool.substr(slash + 1)));
  }
  return failure.status();
}

}  // namespace

absl::StatusOr<int> RemoveSandboxes(const Config& config, std::chrono::seconds patience) {
  if (::access(config.paths.state_dir.c_str(), F_OK) != 0) {
    return 0;
  }
  // Its lock keeps a supervisor from making new ones meanwhile.
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::Open(config.paths.state_dir));
  ASSIGN_OR_RETURN(const std::unique_ptr<DockerEngine> engine,
                   DockerEngine::Connect({.host = config.engine.host,
                                          .tls_ca = config.engine.tls_ca,
                                          .tls_cert = config.engine.tls_cert,
                                          .tls_key = config.engine.tls_key},
                                         After(config.engine.timeout)));
  const Deadline deadline = After(patience);
  ASSIGN_OR_RETURN(const HostAbilities abilities, ProbeHost(*engine, config, deadline));
  ASSIGN_OR_RETURN(
      const std::vector<ContainerInfo> containers,
      engine->ListContainers(fmt::format("{}={}", kInstallLabel, store->install_id()), deadline));
  FirstFailure failure;
  for (const ContainerInfo& container : containers) {
    // One that was frozen through its control group takes no signal, and the engine would wait.
    if (container.state == ContainerState::kRunning || container.state == ContainerState::kPaused) {
      (void)KillFrozenContainer(*engine, abilities, container.id, deadline);
    }
    failure.Note(engine->RemoveContainer(container.id, deadline));
  }
  RETURN_IF_ERROR(failure.status());
  failure.Note(RemoveFolders(config.paths));
  ASSIGN_OR_RETURN(const std::vector<SessionRecord> records, store->List());
  for (const SessionRecord& record : records) {
    failure.Note(store->Remove(record.sandbox_id));
  }
  RETURN_IF_ERROR(failure.status());
  return static_cast<int>(containers.size());
}

}  // namespace creel
