#include "agent-shim/exec/marks.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "supervisor/base/unique_fd.h"

namespace creel::shim {
namespace {

struct CloseDirectory {
  void operator()(DIR* dir) const { closedir(dir); }
};
using ScopedDirectory = std::unique_ptr<DIR, CloseDirectory>;

// The start of a file of /proc; none if the process is gone.
std::optional<std::string> ReadProc(int proc, const std::string& name) {
  const UniqueFd file(openat(proc, name.c_str(), O_RDONLY | O_CLOEXEC));
  char text[4096];
  const ssize_t bytes = file.valid() ? read(file.get(), text, sizeof text) : -1;
  return bytes >= 0 ? std::optional(std::string(text, static_cast<size_t>(bytes))) : std::nullopt;
}

// What stands behind `key` in a status file. The name, which a process chooses and in which gVisor
// leaves line feeds as they are, comes before everything that is asked for here.
std::string_view Field(std::string_view status, std::string_view key) {
  const size_t at = status.rfind(key);
  if (at == std::string_view::npos) {
    return {};
  }
  std::string_view rest = status.substr(at + key.size());
  rest = rest.substr(0, rest.find('\n'));
  const size_t first = rest.find_first_not_of(" \t");
  return first == std::string_view::npos
             ? std::string_view()
             : rest.substr(first, rest.find_last_not_of(" \t") + 1 - first);
}

// The mark if `groups` is one and no other group.
gid_t MarkOf(std::string_view groups) {
  const std::string text(groups);
  char* end = nullptr;
  const unsigned long long group = strtoull(text.c_str(), &end, 10);
  const bool one = !text.empty() && *end == '\0';
  return one && group >= kFirstMark && group < kFirstMark + kMarks ? static_cast<gid_t>(group) : 0;
}

}  // namespace

bool HasSubreapers() {
  const pid_t pid = _Fork();
  if (pid == 0) {
    _exit(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 ? 0 : 1);
  }
  int status = 0;
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::vector<MarkedProcess> ListMarked() {
  std::vector<MarkedProcess> list;
  ScopedDirectory proc(opendir("/proc"));
  if (proc == nullptr) {
    return list;
  }
  const int dir = dirfd(proc.get());
  const std::optional<std::string> own_map = ReadProc(dir, "self/gid_map");
  while (const dirent* item = readdir(proc.get())) {
    if (item->d_name[0] < '1' || item->d_name[0] > '9') {
      continue;
    }
    const auto status = ReadProc(dir, fmt::format("{}/status", item->d_name));
    if (!status.has_value() || status->empty()) {
      continue;
    }
    MarkedProcess entry{.pid = atoi(item->d_name)};
    entry.parent = atoi(std::string(Field(*status, "\nPPid:")).c_str());
    const std::string_view state = Field(*status, "\nState:");
    entry.zombie = state.starts_with('Z') || state.starts_with('X');
    entry.mark = MarkOf(Field(*status, "\nGroups:"));
    if (entry.mark != 0) {
      const auto map = ReadProc(dir, fmt::format("{}/gid_map", item->d_name));
      if (!map.has_value()) {
        continue;
      }
      entry.mark = map == own_map ? entry.mark : 0;
    }
    list.push_back(entry);
  }
  return list;
}

}  // namespace creel::shim
