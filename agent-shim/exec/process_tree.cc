#include "agent-shim/exec/process_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>

#include "supervisor/base/unique_fd.h"

namespace creel::shim {
namespace {

struct CloseDirectory {
  void operator()(DIR* dir) const { closedir(dir); }
};
using ScopedDirectory = std::unique_ptr<DIR, CloseDirectory>;

// Reads state and parent out of /proc/PID/stat. False if it is gone.
bool ReadStat(int proc, const char* name, ProcessEntry& entry) {
  UniqueFd file(openat(proc, fmt::format("{}/stat", name).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return false;
  }
  char text[512];
  const ssize_t bytes = read(file.get(), text, sizeof text - 1);
  if (bytes <= 0) {
    return false;
  }
  text[bytes] = '\0';
  // The name in parentheses is the process's own choice and may hold any of what follows.
  const char* end = strrchr(text, ')');
  char state = 0;
  int parent = 0;
  if (end == nullptr || sscanf(end + 1, " %c %d", &state, &parent) != 2) {
    return false;
  }
  entry.parent = parent;
  entry.zombie = state == 'Z' || state == 'X';
  return true;
}

}  // namespace

std::vector<ProcessEntry> ListProcesses() {
  std::vector<ProcessEntry> entries;
  ScopedDirectory proc(opendir("/proc"));
  if (proc == nullptr) {
    return entries;
  }
  while (const dirent* item = readdir(proc.get())) {
    if (item->d_name[0] < '1' || item->d_name[0] > '9') {
      continue;
    }
    ProcessEntry entry{.pid = atoi(item->d_name)};
    if (ReadStat(dirfd(proc.get()), item->d_name, entry)) {
      entries.push_back(entry);
    }
  }
  return entries;
}

std::vector<pid_t> KillDescendants(pid_t ancestor, const std::set<pid_t>& spared) {
  std::multimap<pid_t, ProcessEntry> by_parent;
  for (const ProcessEntry& entry : ListProcesses()) {
    by_parent.emplace(entry.parent, entry);
  }
  std::vector<pid_t> found;
  std::set<pid_t> seen{ancestor};
  std::vector<pid_t> to_visit{ancestor};
  while (!to_visit.empty()) {
    const pid_t parent = to_visit.back();
    to_visit.pop_back();
    const auto [first, last] = by_parent.equal_range(parent);
    for (auto child = first; child != last; ++child) {
      const ProcessEntry& entry = child->second;
      // A list read while processes come and go may hold a number twice.
      if (spared.contains(entry.pid) || !seen.insert(entry.pid).second) {
        continue;
      }
      to_visit.push_back(entry.pid);
      if (!entry.zombie && entry.pid > 1) {
        kill(entry.pid, SIGKILL);
        found.push_back(entry.pid);
      }
    }
  }
  return found;
}

int CountProcesses() {
  int count = 0;
  for (const ProcessEntry& entry : ListProcesses()) {
    count += entry.zombie ? 0 : 1;
  }
  return count;
}

}  // namespace creel::shim
