#include "supervisor/sandbox/container_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/cgroups.h"
#include "supervisor/sandbox/dir_tree.h"

namespace creel {
namespace {

// SETGID (6), SETUID (7) and KILL (5).
constexpr uint64_t kShimCapabilities = (1u << 5) | (1u << 6) | (1u << 7);

std::map<std::string, std::string> StatusOf(int pid) {
  std::map<std::string, std::string> fields;
  auto text = ReadWholeFile(fmt::format("/proc/{}/status", pid), 65536);
  if (!text.ok()) {
    return fields;
  }
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(":\t");
    if (colon != std::string::npos) {
      fields[line.substr(0, colon)] = line.substr(colon + 2);
    }
  }
  return fields;
}

absl::Status CheckProcess(int pid, const Config& config) {
  const auto fields = StatusOf(pid);
  const auto field = [&](const char* name) {
    const auto found = fields.find(name);
    return found == fields.end() ? std::string() : found->second;
  };
  if (fields.empty()) {
    return absl::OkStatus();  // it ended; whoever waits for the link says so
  }
  if (field("Seccomp") != "2") {
    RETURN_IF_ERROR(RequireConcession(config, "no-seccomp",
                                      "the container runs without a filter of system calls"));
  }
  if (field("NoNewPrivs") != "1") {
    return absl::FailedPreconditionError(
        "the container runs without no-new-privileges: use another runtime");
  }
  for (const char* set : {"CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"}) {
    const uint64_t bits = std::strtoull(field(set).c_str(), nullptr, 16);
    if ((bits & ~kShimCapabilities) != 0) {
      return absl::FailedPreconditionError(fmt::format(
          "the container has capabilities that it was not given ({} {})", set, field(set)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLimits(const ContainerCgroups& groups, const ContainerConfig& asked,
                         const Config& config) {
  const auto memory = groups.MemoryLimit();
  if (!memory.ok() || *memory > static_cast<uint64_t>(asked.memory_bytes)) {
    RETURN_IF_ERROR(RequireConcession(config, "no-memory-limit",
                                      "the container's memory is not limited as asked"));
  }
  // Without a swap controller a host with swap would give any amount on top.
  const auto swap = groups.SwapLimit();
  if (!swap.ok() || *swap > 0) {
    auto swaps = ReadWholeFile("/proc/swaps", 65536);
    const bool host_swaps = !swaps.ok() || std::count(swaps->begin(), swaps->end(), '\n') > 1;
    if (host_swaps) {
      RETURN_IF_ERROR(RequireConcession(config, "no-memory-limit",
                                        "the container may use swap on top of its memory"));
    }
  }
  const auto pids = groups.PidsLimit();
  if (!pids.ok() || *pids > static_cast<uint64_t>(asked.pids_limit)) {
    RETURN_IF_ERROR(RequireConcession(config, "no-pids-limit",
                                      "the container's processes are not limited as asked"));
  }
  return absl::OkStatus();
}

// Options of what is mounted last at each place; "ro,nosuid,nodev".
std::map<std::string, std::string> MountsOf(int pid) {
  std::map<std::string, std::string> mounts;
  auto text = ReadWholeFile(fmt::format("/proc/{}/mountinfo", pid), 1u << 20);
  if (!text.ok()) {
    return mounts;
  }
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string skip;
    std::string target;
    std::string options;
    words >> skip >> skip >> skip >> skip >> target >> options;
    mounts[target] = options;
  }
  return mounts;
}

bool HasWord(const std::string& options, const std::string& word) {
  return fmt::format(",{},", options).find(fmt::format(",{},", word)) != std::string::npos;
}

absl::Status CheckMounts(int pid, const ContainerConfig& asked) {
  const auto mounts = MountsOf(pid);
  if (mounts.empty()) {
    return absl::OkStatus();
  }
  if (const auto root = mounts.find("/"); root == mounts.end() || !HasWord(root->second, "ro")) {
    return absl::FailedPreconditionError("the container's root is writable");
  }
  const auto check = [&](const std::string& target) {
    const auto found = mounts.find(target);
    if (found == mounts.end()) {
      return absl::FailedPreconditionError(
          fmt::format("'{}' is not mounted in the container", target));
    }
    if (!HasWord(found->second, "nosuid") || !HasWord(found->second, "nodev")) {
      return absl::FailedPreconditionError(
          fmt::format("'{}' is mounted in the container without nosuid or nodev", target));
    }
    return absl::OkStatus();
  };
  for (const BindMount& bind : asked.binds) {
    RETURN_IF_ERROR(check(bind.target));
  }
  for (const TmpfsMount& tmpfs : asked.tmpfs) {
    RETURN_IF_ERROR(check(tmpfs.target));
  }
  return absl::OkStatus();
}

}  // namespace

bool SeesProcessOf(const ContainerInfo& info) {
  if (info.pid <= 0) {
    return false;
  }
  auto table = ReadWholeFile(fmt::format("/proc/{}/cgroup", info.pid), 65536);
  return table.ok() && !info.id.empty() && table->find(info.id) != std::string::npos;
}

namespace {

absl::Status CheckWhatRuns(const ContainerInfo& info, const ContainerConfig& asked,
                           const HostAbilities& abilities, const Config& config) {
  const RuntimeKind kind =
      KindOfRuntime(asked.runtime.empty() ? abilities.default_runtime : asked.runtime);
  if (!SeesProcessOf(info)) {
    if (kind == RuntimeKind::kGvisor && info.pid > 0) {
      const std::string what =
          "the runtime does not put the container into control groups, so that nothing limits its ";
      RETURN_IF_ERROR(RequireConcession(config, "no-memory-limit", what + "memory"));
      RETURN_IF_ERROR(RequireConcession(config, "no-pids-limit", what + "processes"));
    }
    return absl::OkStatus();
  }
  auto groups = ContainerCgroups::OfProcess(info.pid, abilities.cgroup_root);
  if (groups.ok()) {
    RETURN_IF_ERROR(CheckLimits(*groups, asked, config));
    if (abilities.root && abilities.cgroup_version == 1 && asked.blkio_weight > 0) {
      if (const absl::Status set = groups->SetBlkioWeight(asked.blkio_weight); !set.ok()) {
        RETURN_IF_ERROR(
            RequireConcession(config, "no-blkio",
                              fmt::format("the container's disk use cannot be weighed ({})",
                                          std::string(set.message()))));
      }
    }
  }
  // What /proc shows of the process behind another kernel is that kernel's, not the tools'.
  if (kind != RuntimeKind::kNative) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckProcess(info.pid, config));
  return abilities.root ? CheckMounts(info.pid, asked) : absl::OkStatus();
}

// Whether the process has ended, or does so within a moment: one that is about to end has no groups
// of its own already.
bool Ends(int pid) {
  constexpr int kMomentMs = 200;
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process.valid()) {
    return errno == ESRCH;
  }
  pollfd end{.fd = process.get(), .events = POLLIN, .revents = 0};
  return ::poll(&end, 1, kMomentMs) == 1;
}

}  // namespace

absl::Status CheckContainer(const ContainerInfo& info, const ContainerConfig& asked,
                            const HostAbilities& abilities, const Config& config) {
  const absl::Status checked = CheckWhatRuns(info, asked, abilities, config);
  // Of a first process that ended meanwhile neither groups nor mounts are left to be looked at, and
  // nothing runs that they could fail to hold; whoever waits for its link says why it ended.
  return checked.ok() || !Ends(info.pid) ? checked : absl::OkStatus();
}

uint64_t BytesUsedAt(const ContainerInfo& info, const std::string& folder) {
  if (!SeesProcessOf(info)) {
    return 0;
  }
  const UniqueFd root(
      ::open(fmt::format("/proc/{}/root", info.pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) {
    return 0;
  }
  struct open_how how {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  const UniqueFd inside(
      static_cast<int>(::syscall(SYS_openat2, root.get(), folder.c_str(), &how, sizeof how)));
  struct statvfs about {};
  if (!inside.valid() || ::fstatvfs(inside.get(), &about) != 0) {
    return 0;
  }
  return static_cast<uint64_t>(about.f_blocks - about.f_bfree) * about.f_frsize;
}

}  // namespace creel
