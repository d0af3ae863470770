#include "supervisor/sandbox/host_abilities.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <sstream>

#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/dir_tree.h"
#include "supervisor/sandbox/loop_image.h"
#include "supervisor/sandbox/mount_calls.h"
#include "supervisor/sandbox/sandbox_paths.h"

namespace creel {
namespace {

std::string FirstLine(const std::string& path) {
  auto text = ReadWholeFile(path, 65536);
  return text.ok() ? text->substr(0, text->find('\n')) : std::string();
}

std::string Words(const std::string& line) {
  std::istringstream words(line);
  std::string out;
  for (std::string word; words >> word;) {
    out += out.empty() ? word : " " + word;
  }
  return out;
}

// Root with the right to mount, not merely uid 0 of some container.
bool IsHostRoot() {
  if (::geteuid() != 0 || Words(FirstLine("/proc/self/uid_map")) != "0 0 4294967295") {
    return false;
  }
  auto status = ReadWholeFile("/proc/self/status", 65536);
  if (!status.ok()) {
    return false;
  }
  std::istringstream lines(*status);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("CapEff:", 0) == 0) {
      constexpr uint64_t kSysAdmin = 1ull << 21;
      return (std::strtoull(line.c_str() + 7, nullptr, 16) & kSysAdmin) != 0;
    }
  }
  return false;
}

bool HasOption(const EngineInfo& info, std::string_view name) {
  return std::any_of(info.security_options.begin(), info.security_options.end(),
                     [&](const std::string& option) {
                       return option == name || option.rfind(fmt::format("{},", name), 0) == 0;
                     });
}

bool WarnsOf(const EngineInfo& info, std::string_view what) {
  return std::any_of(info.warnings.begin(), info.warnings.end(), [&](const std::string& warning) {
    return warning.find(what) != std::string::npos;
  });
}

// Mounts an image of the size that sandboxes get, so that its template is ready for the first one.
absl::Status TryLoopMount(const Config& config) {
  const std::string name = fmt::format("probe-{}", ::getpid());
  const std::string image = fmt::format("{}/{}.img", config.paths.state_dir, name);
  const std::string parent = config.paths.run_dir + "/mounts";
  const std::string slot = fmt::format("{}/{}", parent, name);
  RETURN_IF_ERROR(MakeDirectories(parent, 0700));
  RETURN_IF_ERROR(MakeDirectories(slot, 0700));
  (void)::unlink(image.c_str());
  absl::Status tried = [&]() -> absl::Status {
    RETURN_IF_ERROR(
        MakeLoopImage(TemplateDir(config.paths), image, config.sandbox.limits.workspace_bytes));
    std::string device;
    ASSIGN_OR_RETURN(const UniqueFd loop, AttachLoop(image, &device));
    return MountExt4(device, slot);
  }();
  if (absl::Status down = DetachMounts(slot); tried.ok()) {
    tried = down;
  }
  (void)::rmdir(slot.c_str());
  (void)::unlink(image.c_str());
  return tried;
}

absl::Status TryIdmap(const Config& config) {
  ASSIGN_OR_RETURN(const UniqueFd folder, OpenDirectory(config.paths.state_dir));
  ASSIGN_OR_RETURN(const UniqueFd map, MakeIdmap(1000, config.sandbox.tool_uid_base, 1000,
                                                 config.sandbox.tool_uid_base));
  return CloneMount(folder.get(), {}, map.get()).status();
}

// Makes a control group and freezes it, empty as it is.
absl::Status TryFreezer(const std::string& folder, const std::string& file,
                        const std::string& value) {
  const std::string group = fmt::format("{}/creel-probe-{}", folder, ::getpid());
  if (::mkdir(group.c_str(), 0755) != 0) {
    return ErrnoStatus(errno, fmt::format("make '{}'", group));
  }
  const std::string control = fmt::format("{}/{}", group, file);
  absl::Status tried = absl::OkStatus();
  {
    const UniqueFd fd(::open(control.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.valid() || ::write(fd.get(), value.data(), value.size()) < 0) {
      tried = ErrnoStatus(errno, fmt::format("write '{}'", control));
    }
  }
  (void)::rmdir(group.c_str());
  return tried;
}

// Whether a new group of the block I/O controller has a weight.
bool HasBlkioWeight(const HostAbilities& abilities) {
  if (abilities.cgroup_version == 2) {
    auto controllers = ReadWholeFile(abilities.cgroup_root + "/cgroup.controllers", 4096);
    return controllers.ok() && (" " + *controllers).find(" io") != std::string::npos;
  }
  const std::string group =
      fmt::format("{}/blkio/creel-probe-{}", abilities.cgroup_root, ::getpid());
  if (::mkdir(group.c_str(), 0755) != 0) {
    return false;
  }
  const bool has = ::access((group + "/blkio.bfq.weight").c_str(), W_OK) == 0 ||
                   ::access((group + "/blkio.weight").c_str(), W_OK) == 0;
  (void)::rmdir(group.c_str());
  return has;
}

// The whole disk that `path` lies on, such as "vda"; empty where there is no such one disk.
std::string DiskOf(const std::string& path) {
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0 || major(about.st_dev) == 0) {
    return {};
  }
  char resolved[PATH_MAX];
  const std::string link =
      fmt::format("/sys/dev/block/{}:{}", major(about.st_dev), minor(about.st_dev));
  if (::realpath(link.c_str(), resolved) == nullptr) {
    return {};
  }
  std::string device = resolved;
  if (::access((device + "/partition").c_str(), F_OK) == 0) {
    device = device.substr(0, device.rfind('/'));
  }
  return device.substr(device.rfind('/') + 1);
}

bool Conceded(const Config& config, const std::string& name) {
  return config.concessions.count(name) != 0;
}

std::string Concede(const std::string& name) {
  return fmt::format("or accept it: add '{}' to the list 'concessions' of the configuration", name);
}

// Builds the rows of the table.
class Rows {
 public:
  Rows(const Config& config, std::vector<Finding>& rows) : config_(config), rows_(rows) {}

  // A wall: without it and without its concession nothing starts.
  void Wall(const std::string& id, bool stands, const std::string& title, const std::string& why,
            const std::string& fix) {
    if (stands) {
      rows_.push_back({.id = id, .title = title});
      return;
    }
    const bool conceded = Conceded(config_, id);
    rows_.push_back({.id = id,
                     .severity = conceded ? Severity::kWarning : Severity::kError,
                     .title = title,
                     .why = why,
                     .fix = conceded ? fix : fmt::format("{}; {}", fix, Concede(id))});
  }
  // Something that is good to have.
  void Hint(const std::string& id, bool good, const std::string& title, const std::string& why,
            const std::string& fix) {
    rows_.push_back({.id = id,
                     .severity = good ? Severity::kOk : Severity::kWarning,
                     .title = title,
                     .why = good ? std::string() : why,
                     .fix = good ? std::string() : fix});
  }

 private:
  const Config& config_;
  std::vector<Finding>& rows_;
};

void ProbeKernel(const Config& config, HostAbilities& abilities) {
  if (!abilities.root) {
    const char* why = "creeld does not run as root of the host";
    abilities.loop_mounts_why = why;
    abilities.idmap_why = why;
    abilities.cgroup_freezer_why = why;
    return;
  }
  if (abilities.engine_elsewhere) {
    const char* why = "the engine runs on another machine, or in a virtual one";
    abilities.loop_mounts_why = why;
    abilities.idmap_why = why;
    abilities.cgroup_freezer_why = why;
    return;
  }
  const absl::Status loop = TryLoopMount(config);
  abilities.loop_mounts = loop.ok();
  abilities.loop_mounts_why = std::string(loop.message());
  const absl::Status idmap = TryIdmap(config);
  abilities.idmap = idmap.ok();
  abilities.idmap_why = std::string(idmap.message());
  const absl::Status freezer =
      abilities.cgroup_version == 2
          ? TryFreezer(abilities.cgroup_root, "cgroup.freeze", "1")
          : TryFreezer(abilities.cgroup_root + "/freezer", "freezer.state", "FROZEN");
  abilities.cgroup_freezer = freezer.ok();
  abilities.cgroup_freezer_why = std::string(freezer.message());
  abilities.blkio_weight = HasBlkioWeight(abilities);
}

}  // namespace

RuntimeKind KindOfRuntime(const std::string& runtime) {
  if (runtime.find("runsc") != std::string::npos || runtime.find("gvisor") != std::string::npos) {
    return RuntimeKind::kGvisor;
  }
  if (runtime.find("kata") != std::string::npos) {
    return RuntimeKind::kVm;
  }
  return RuntimeKind::kNative;
}

absl::StatusOr<HostAbilities> ProbeHost(Engine& engine, const Config& config, Deadline deadline) {
  ASSIGN_OR_RETURN(const EngineInfo info, engine.Info(deadline));
  HostAbilities abilities;
  abilities.root = IsHostRoot();
  abilities.default_runtime = info.default_runtime;
  abilities.runtimes = info.runtimes;
  abilities.engine_dir = info.root_dir;
  abilities.seccomp_engine = HasOption(info, "name=seccomp");
  abilities.apparmor_engine = HasOption(info, "name=apparmor");
  abilities.selinux_engine = HasOption(info, "name=selinux");
  abilities.rootless_engine = info.rootless || HasOption(info, "name=rootless");
  abilities.userns_remap = HasOption(info, "name=userns");
  abilities.apparmor_host = FirstLine("/sys/module/apparmor/parameters/enabled") == "Y";
  abilities.memory_limit =
      !WarnsOf(info, "No memory limit support") && !WarnsOf(info, "No swap limit support");
  abilities.pids_limit = !WarnsOf(info, "No pids");
  abilities.cpu_limit = !WarnsOf(info, "No cpu cfs quota") && !WarnsOf(info, "No CPU CFS");
  abilities.engine_elsewhere =
      info.operating_system.find("Docker Desktop") != std::string::npos ||
      (abilities.root && !info.root_dir.empty() && ::access(info.root_dir.c_str(), F_OK) != 0);
  struct statfs groups {};
  abilities.cgroup_version = ::statfs(abilities.cgroup_root.c_str(), &groups) == 0 &&
                                     static_cast<uint32_t>(groups.f_type) == CGROUP2_SUPER_MAGIC
                                 ? 2
                                 : 1;
  if (const std::string disk = DiskOf(config.paths.state_dir); !disk.empty()) {
    abilities.state_device = "/dev/" + disk;
    abilities.blkio_weight_heeded =
        FirstLine(fmt::format("/sys/block/{}/queue/scheduler", disk)).find("[bfq]") !=
        std::string::npos;
  }
  ProbeKernel(config, abilities);
  if (!abilities.root) {
    // The engine's word, as we may not try.
    abilities.blkio_weight = abilities.cgroup_version == 2 && !WarnsOf(info, "blkio weight") &&
                             !WarnsOf(info, "io.weight");
  }
  return abilities;
}

std::vector<Finding> FindingsOf(const HostAbilities& abilities, const Config& config) {
  std::vector<Finding> findings;
  Rows rows(config, findings);
  rows.Hint(
      "not-root", abilities.root, "creeld is root of the host",
      "the walls that need mounts, owners and control groups are the engine's alone; binds of "
      "given folders lack nosuid and nodev",
      "run creeld as root, under its systemd unit");
  rows.Hint("engine-elsewhere", !abilities.engine_elsewhere,
            "creeld and the engine are on one kernel",
            "the engine runs on another machine, or in a virtual one as Docker Desktop's does",
            "run creeld where the engine runs");
  rows.Wall("no-sized-workspace", abilities.loop_mounts, "workspaces have a size",
            abilities.loop_mounts_why, "run creeld as root where /dev/loop-control is there");
  rows.Hint(
      "no-idmap", abilities.idmap, "given folders are mounted with their owner mapped",
      abilities.idmap_why,
      "use a kernel of 5.12 or newer and ext4, xfs or btrfs; without it a session with a given "
      "folder opens only under the concession 'no-idmap'");
  rows.Hint("no-freezer", abilities.cgroup_freezer,
            "a sandbox that the engine cannot pause is frozen through its control group",
            abilities.cgroup_freezer_why,
            "run creeld as root with /sys/fs/cgroup writable; otherwise such a sandbox is killed");
  rows.Wall("no-seccomp",
            abilities.seccomp_engine &&
                KindOfRuntime(config.sandbox.runtime.empty()
                                  ? abilities.default_runtime
                                  : config.sandbox.runtime) != RuntimeKind::kGvisor,
            "system calls are filtered",
            abilities.seccomp_engine ? "the runtime has a kernel of its own and applies no profile"
                                     : "the engine does not apply seccomp profiles",
            "use a kernel and engine with seccomp");
  rows.Wall("no-apparmor", !abilities.apparmor_host || abilities.apparmor_engine,
            "AppArmor confines containers where the host has it",
            "the host has AppArmor and the engine does not use it",
            "install the apparmor package and restart the engine");
  rows.Wall("rootless-engine", !abilities.rootless_engine, "the engine is not rootless",
            "a rootless engine maps uids and may lack limits", "use an engine that runs as root");
  rows.Wall("userns-remap", !abilities.userns_remap, "the engine does not map uids",
            "the engine maps uids (userns-remap), so files have other owners than Creel sets",
            "start the engine without userns-remap");
  rows.Wall("no-memory-limit", abilities.memory_limit, "memory and swap are limited",
            "the engine says that it cannot limit memory or swap",
            "boot with cgroup_enable=memory swapaccount=1, or use cgroup v2");
  rows.Wall("no-pids-limit", abilities.pids_limit, "the number of processes is limited",
            "the engine says that it cannot limit processes",
            "use a kernel with the pids control group");
  const bool rates = config.sandbox.limits.read_bps > 0 || config.sandbox.limits.write_bps > 0;
  rows.Wall("no-blkio",
            (config.sandbox.limits.blkio_weight == 0 || abilities.blkio_weight) &&
                (!rates || !abilities.state_device.empty()),
            "disk use is weighed and limited",
            rates && abilities.state_device.empty()
                ? "the state folder is not on one disk whose rate could be limited"
                : "no control group weighs block I/O",
            "use a kernel with BFQ, or set sandbox.limits.blkio_weight: 0");
  rows.Hint("blkio-weight",
            config.sandbox.limits.blkio_weight == 0 || !abilities.blkio_weight ||
                abilities.blkio_weight_heeded,
            "the disk's scheduler heeds weights",
            fmt::format("the scheduler of '{}' is not bfq, so weights have no effect",
                        abilities.state_device),
            "choose bfq for it, or set sandbox.limits.read_bps and write_bps");
  rows.Wall("mode-off", config.sandbox.mode != SandboxMode::kOff, "sessions get sandboxes",
            "sandbox.mode is off", "set sandbox.mode: non-main");
  return findings;
}

absl::Status CheckConcessions(const HostAbilities& abilities, const Config& config) {
  std::string missing;
  std::string yaml;
  for (const Finding& finding : FindingsOf(abilities, config)) {
    if (finding.severity == Severity::kError) {
      missing += fmt::format("\n  {}: not so: {}; {}", finding.title, finding.why, finding.fix);
      yaml += fmt::format("\n  - {}", finding.id);
    }
  }
  if (missing.empty()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(fmt::format(
      "sandboxes would be weaker here than they must be:{}\nto accept all of it, add to "
      "the configuration:\nconcessions:{}",
      missing, yaml));
}

absl::Status RequireConcession(const Config& config, const std::string& name,
                               const std::string& what) {
  if (Conceded(config, name)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(fmt::format(
      "{}; to accept that, add '{}' to the list 'concessions' of the configuration", what, name));
}

}  // namespace creel
