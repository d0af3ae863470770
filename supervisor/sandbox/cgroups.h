#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"

namespace creel {

struct HostAbilities;

// The control groups that one container's processes are in, as far as this process sees them.
class ContainerCgroups {
 public:
  // Looks up those of process `pid` in <proc>/<pid>/cgroup. `root` and `proc` are /sys/fs/cgroup
  // and /proc but in tests.
  //   kNotFound            no such process
  //   kFailedPrecondition  it is in the root group: the runtime does not use control groups
  static absl::StatusOr<ContainerCgroups> OfProcess(int pid, const std::string& root,
                                                    const std::string& proc = "/proc");

  // Those of `container`, if this process may freeze them and `pid` still is one of the
  // container's: the number may be another process's by now, or one of another machine, whose group
  // would be a stranger's.
  //   kFailedPrecondition  they are not to be written, or not to be seen, from here
  static absl::StatusOr<ContainerCgroups> OfContainer(const HostAbilities& abilities,
                                                      const std::string& container, int pid,
                                                      const std::string& proc = "/proc");

  // Stops every process in it, and returns when all have stopped; on failure lets them go on.
  [[nodiscard]] absl::Status Freeze(Deadline deadline) const;
  // kNotFound: it is not there any more.
  [[nodiscard]] absl::Status Thaw() const;
  [[nodiscard]] absl::StatusOr<bool> IsFrozen() const;

  // All that are in it, as this process numbers them.
  [[nodiscard]] absl::StatusOr<std::vector<int>> Processes() const;

  // Memory that its processes take, without file pages that can be dropped.
  [[nodiscard]] absl::StatusOr<uint64_t> MemoryUsed() const;

  // The limits that hold, in bytes and processes; UINT64_MAX: none. kNotFound: not kept here.
  [[nodiscard]] absl::StatusOr<uint64_t> MemoryLimit() const;
  // What swap may add to the above.
  [[nodiscard]] absl::StatusOr<uint64_t> SwapLimit() const;
  [[nodiscard]] absl::StatusOr<uint64_t> PidsLimit() const;

  // Processor time that was used, and processes that there are. kNotFound: not kept here.
  [[nodiscard]] absl::StatusOr<std::chrono::nanoseconds> CpuUsed() const;
  [[nodiscard]] absl::StatusOr<uint64_t> Pids() const;

  // Sets the weight, 10 to 1000, where the kernel weighs by BFQ, which engines do not know of on
  // the first version of cgroups.
  [[nodiscard]] absl::Status SetBlkioWeight(uint16_t weight) const;

 private:
  ContainerCgroups() = default;
  // From what /proc says of a process's groups.
  static absl::StatusOr<ContainerCgroups> OfTable(int pid, const std::string& table,
                                                  const std::string& root);
  // The folder of a controller; empty: there is none.
  [[nodiscard]] std::string Folder(const std::string& controller) const;

  std::string root_;
  // Controller (empty: the unified hierarchy) and its folder.
  std::vector<std::pair<std::string, std::string>> folders_;
};

}  // namespace creel
