#include "supervisor/sandbox/cgroups.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>
#include <sstream>
#include <thread>

#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/dir_tree.h"
#include "supervisor/sandbox/host_abilities.h"

namespace creel {
namespace {

constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();
// The first version writes "none" as the largest number of pages.
constexpr uint64_t kNoneV1 = 1ull << 62;
// Of a process's table of groups.
constexpr size_t kMaxTable = 65536;

absl::Status WriteControl(const std::string& path, const std::string& value) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid() || ::write(fd.get(), value.data(), value.size()) < 0) {
    return ErrnoStatus(errno, fmt::format("write '{}' to '{}'", value, path));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadControl(const std::string& path) {
  ASSIGN_OR_RETURN(std::string text, ReadWholeFile(path, 65536));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
    text.pop_back();
  }
  return text;
}

absl::StatusOr<uint64_t> ReadLimit(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadControl(path));
  if (text == "max") {
    return kNone;
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return absl::InternalError(fmt::format("'{}' holds '{}'", path, text));
  }
  return value >= kNoneV1 ? kNone : value;
}

bool IsFolder(const std::string& path) {
  struct stat about {};
  return ::stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
}

// Whether a path from /proc stays below the folder it is put behind.
bool IsSafe(const std::string& path) {
  return !path.empty() && path.front() == '/' && path.find("/..") == std::string::npos;
}

// A value of a "key value" file.
bool HasLine(const std::string& text, const std::string& line) {
  std::istringstream lines(text);
  for (std::string each; std::getline(lines, each);) {
    if (each == line) {
      return true;
    }
  }
  return false;
}

// The number after `name` and a space at the beginning of a line.
absl::StatusOr<uint64_t> ReadCounter(const std::string& path, std::string_view name) {
  ASSIGN_OR_RETURN(const std::string text, ReadControl(path));
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ' ') {
      uint64_t value = 0;
      std::from_chars(line.data() + name.size() + 1, line.data() + line.size(), value);
      return value;
    }
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  return absl::NotFoundError(fmt::format("'{}' has no '{}'", path, name));
}

}  // namespace

absl::StatusOr<ContainerCgroups> ContainerCgroups::OfProcess(int pid, const std::string& root,
                                                             const std::string& proc) {
  ASSIGN_OR_RETURN(const std::string table,
                   ReadWholeFile(fmt::format("{}/{}/cgroup", proc, pid), kMaxTable));
  return OfTable(pid, table, root);
}

absl::StatusOr<ContainerCgroups> ContainerCgroups::OfContainer(const HostAbilities& abilities,
                                                               const std::string& container,
                                                               int pid, const std::string& proc) {
  if (!abilities.cgroup_freezer) {
    return absl::FailedPreconditionError(
        fmt::format("its control group cannot be written: {}", abilities.cgroup_freezer_why));
  }
  const absl::StatusOr<std::string> table =
      pid > 0 ? ReadWholeFile(fmt::format("{}/{}/cgroup", proc, pid), kMaxTable)
              : absl::NotFoundError("it has no process");
  if (!table.ok() || container.empty() || table->find(container) == std::string::npos) {
    return absl::FailedPreconditionError("its control group is not to be seen from here");
  }
  return OfTable(pid, *table, abilities.cgroup_root);
}

absl::StatusOr<ContainerCgroups> ContainerCgroups::OfTable(int pid, const std::string& table,
                                                           const std::string& root) {
  ContainerCgroups groups;
  groups.root_ = root;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    // "4:cpu,cpuacct:/docker/ID"; "0::/docker/ID" is the unified hierarchy.
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) {
      continue;
    }
    const std::string path = line.substr(second + 1);
    if (!IsSafe(path) || path == "/") {
      continue;
    }
    const std::string names = line.substr(first + 1, second - first - 1);
    if (names.empty()) {
      // Alone at the root, or beside the first version's in a folder of its own.
      for (const std::string& base : {root, root + "/unified"}) {
        if (IsFolder(base + path) && ::access((base + path + "/cgroup.procs").c_str(), R_OK) == 0) {
          groups.folders_.emplace_back("", base + path);
          break;
        }
      }
      continue;
    }
    std::istringstream each(names);
    for (std::string name; std::getline(each, name, ',');) {
      for (const std::string& mounted : {name, names}) {
        const std::string folder = fmt::format("{}/{}{}", root, mounted, path);
        if (IsFolder(folder)) {
          groups.folders_.emplace_back(name, folder);
          break;
        }
      }
    }
  }
  if (groups.folders_.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("process {} is in no control group of its own", pid));
  }
  return groups;
}

std::string ContainerCgroups::Folder(const std::string& controller) const {
  const auto found = std::find_if(folders_.begin(), folders_.end(),
                                  [&](const auto& each) { return each.first == controller; });
  return found == folders_.end() ? std::string() : found->second;
}

absl::StatusOr<bool> ContainerCgroups::IsFrozen() const {
  if (const std::string v1 = Folder("freezer"); !v1.empty()) {
    ASSIGN_OR_RETURN(const std::string state, ReadControl(v1 + "/freezer.state"));
    return state == "FROZEN";
  }
  if (const std::string v2 = Folder(""); !v2.empty()) {
    ASSIGN_OR_RETURN(const std::string events, ReadControl(v2 + "/cgroup.events"));
    return HasLine(events, "frozen 1");
  }
  return absl::NotFoundError("there is no freezer in the container's control groups");
}

absl::Status ContainerCgroups::Freeze(Deadline deadline) const {
  const std::string v1 = Folder("freezer");
  const std::string v2 = Folder("");
  for (;;) {
    if (!v1.empty()) {
      // Written again each time: a group with a process in an uninterruptible wait stays FREEZING,
      // and a new write makes the kernel try the rest again.
      RETURN_IF_ERROR(WriteControl(v1 + "/freezer.state", "FROZEN"));
    } else if (!v2.empty()) {
      RETURN_IF_ERROR(WriteControl(v2 + "/cgroup.freeze", "1"));
    }
    ASSIGN_OR_RETURN(const bool frozen, IsFrozen());
    if (frozen) {
      return absl::OkStatus();
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      (void)Thaw();
      return absl::DeadlineExceededError("the processes did not stop in time");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

absl::Status ContainerCgroups::Thaw() const {
  if (const std::string v1 = Folder("freezer"); !v1.empty()) {
    return WriteControl(v1 + "/freezer.state", "THAWED");
  }
  if (const std::string v2 = Folder(""); !v2.empty()) {
    return WriteControl(v2 + "/cgroup.freeze", "0");
  }
  return absl::NotFoundError("there is no freezer in the container's control groups");
}

absl::StatusOr<std::vector<int>> ContainerCgroups::Processes() const {
  const std::string v1 = Folder("freezer");
  ASSIGN_OR_RETURN(const std::string text,
                   ReadControl((v1.empty() ? Folder("") : v1) + "/cgroup.procs"));
  std::vector<int> processes;
  std::istringstream numbers(text);
  for (int pid = 0; numbers >> pid;) {
    processes.push_back(pid);
  }
  return processes;
}

absl::StatusOr<uint64_t> ContainerCgroups::MemoryUsed() const {
  const std::string v1 = Folder("memory");
  const std::string folder = v1.empty() ? Folder("") : v1;
  ASSIGN_OR_RETURN(const uint64_t used,
                   ReadLimit(folder + (v1.empty() ? "/memory.current" : "/memory.usage_in_bytes")));
  ASSIGN_OR_RETURN(const std::string stat, ReadControl(folder + "/memory.stat"));
  const std::string wanted = v1.empty() ? "inactive_file" : "total_inactive_file";
  std::istringstream lines(stat);
  uint64_t value = 0;
  for (std::string name; lines >> name >> value;) {
    if (name == wanted) {
      return used - std::min(used, value);
    }
  }
  return used;
}

absl::StatusOr<uint64_t> ContainerCgroups::MemoryLimit() const {
  if (const std::string v1 = Folder("memory"); !v1.empty()) {
    return ReadLimit(v1 + "/memory.limit_in_bytes");
  }
  return ReadLimit(Folder("") + "/memory.max");
}

absl::StatusOr<uint64_t> ContainerCgroups::SwapLimit() const {
  if (const std::string v1 = Folder("memory"); !v1.empty()) {
    ASSIGN_OR_RETURN(const uint64_t both, ReadLimit(v1 + "/memory.memsw.limit_in_bytes"));
    ASSIGN_OR_RETURN(const uint64_t memory, MemoryLimit());
    return both == kNone ? kNone : both - std::min(both, memory);
  }
  return ReadLimit(Folder("") + "/memory.swap.max");
}

absl::StatusOr<uint64_t> ContainerCgroups::PidsLimit() const {
  if (const std::string v1 = Folder("pids"); !v1.empty()) {
    return ReadLimit(v1 + "/pids.max");
  }
  return ReadLimit(Folder("") + "/pids.max");
}

absl::StatusOr<std::chrono::nanoseconds> ContainerCgroups::CpuUsed() const {
  if (const std::string v1 = Folder("cpuacct"); !v1.empty()) {
    ASSIGN_OR_RETURN(const uint64_t used, ReadLimit(v1 + "/cpuacct.usage"));
    return std::chrono::nanoseconds(used);
  }
  ASSIGN_OR_RETURN(const uint64_t used, ReadCounter(Folder("") + "/cpu.stat", "usage_usec"));
  return std::chrono::microseconds(used);
}

absl::StatusOr<uint64_t> ContainerCgroups::Pids() const {
  if (const std::string v1 = Folder("pids"); !v1.empty()) {
    return ReadLimit(v1 + "/pids.current");
  }
  return ReadLimit(Folder("") + "/pids.current");
}

absl::Status ContainerCgroups::SetBlkioWeight(uint16_t weight) const {
  if (const std::string v1 = Folder("blkio"); !v1.empty()) {
    return WriteControl(v1 + "/blkio.bfq.weight", fmt::format("{}", weight));
  }
  if (const std::string v2 = Folder(""); !v2.empty()) {
    return WriteControl(v2 + "/io.bfq.weight", fmt::format("{}", weight));
  }
  return absl::NotFoundError("there is no block I/O controller in the container's control groups");
}

}  // namespace creel
