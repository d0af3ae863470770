#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/engine.h"

namespace creel {

// What the host can do for sandboxes, as tried out and asked for once at start.
struct HostAbilities {
  // We run as the host's root, in its first user namespace.
  bool root = false;
  // Each of these, where false, says why in the text beside it.
  bool loop_mounts = false;
  std::string loop_mounts_why;
  bool idmap = false;
  std::string idmap_why;
  bool cgroup_freezer = false;
  std::string cgroup_freezer_why;

  // Of the host: 1 or 2; where its cgroups are.
  int cgroup_version = 0;
  std::string cgroup_root = "/sys/fs/cgroup";

  bool apparmor_host = false;
  bool apparmor_engine = false;
  bool selinux_engine = false;
  bool seccomp_engine = false;
  bool rootless_engine = false;
  bool userns_remap = false;
  // A virtual machine between us and the engine, as Docker Desktop has: our mounts and cgroups are
  // not the engine's.
  bool engine_elsewhere = false;

  // The cgroup of the engine can weigh block I/O; the scheduler of the state folder's device heeds
  // it.
  bool blkio_weight = false;
  bool blkio_weight_heeded = false;
  bool memory_limit = true;
  bool pids_limit = true;
  bool cpu_limit = true;

  std::string default_runtime;
  std::vector<std::string> runtimes;
  std::string engine_dir;
  // `/dev/…` of the disk that holds the state folder, for rates; empty: unknown.
  std::string state_device;
};

enum class Severity { kOk, kWarning, kError };

// One line of `creel doctor`: a row of the table of modes.
struct Finding {
  std::string id;  // the concession's name where there is one
  Severity severity = Severity::kOk;
  std::string title;
  std::string why{};  // what was found
  std::string fix{};  // what to do about it; empty for kOk
  // Does that, where nobody would miss what it takes away; else null.
  std::function<absl::Status()> put_right{};
  bool fixed = false;  // that was done just now
};

// How a runtime keeps what is asked of it.
enum class RuntimeKind {
  kNative,  // runc, crun and others that use the host's kernel
  kGvisor,  // a kernel of its own in user space; applies neither seccomp nor AppArmor to tools
  kVm,      // Kata and the like
};
RuntimeKind KindOfRuntime(const std::string& runtime);

// Asks the engine and tries out what can be tried: mounts a sized image and an idmapped folder
// below the state folder and takes them down again. Fails only when the engine does not answer.
absl::StatusOr<HostAbilities> ProbeHost(Engine& engine, const Config& config, Deadline deadline);

// Every row, good or bad. A lack is kWarning where a concession names it, else kError.
std::vector<Finding> FindingsOf(const HostAbilities& abilities, const Config& config);

// kFailedPrecondition: something is weaker than it must be and no concession names it; the message
// holds the YAML to add for each. Sandboxes check what concerns only some of them themselves.
absl::Status CheckConcessions(const HostAbilities& abilities, const Config& config);

// OK if the operator accepted `name`, else kFailedPrecondition: `what` and how to accept it.
absl::Status RequireConcession(const Config& config, const std::string& name,
                               const std::string& what);

}  // namespace creel
