#include "agent-shim/api/self_status.h"

#include <dirent.h>

#include <cstdio>
#include <cstring>
#include <memory>

#include "agent-shim/exec/process_tree.h"

namespace creel::shim {
namespace {

struct CloseFile {
  void operator()(FILE* file) const { fclose(file); }
};
struct CloseDirectory {
  void operator()(DIR* dir) const { closedir(dir); }
};

uint32_t CountEntries(const char* path) {
  const std::unique_ptr<DIR, CloseDirectory> dir(opendir(path));
  uint32_t count = 0;
  while (dir != nullptr) {
    const dirent* entry = readdir(dir.get());
    if (entry == nullptr) {
      break;
    }
    count += entry->d_name[0] != '.' ? 1 : 0;
  }
  return count;
}

// Without the pages of the binary, which are the page cache's and the same for all sandboxes.
uint64_t PrivateBytes() {
  const std::unique_ptr<FILE, CloseFile> file(fopen("/proc/self/smaps_rollup", "re"));
  uint64_t kilobytes = 0;
  char line[256];
  while (file != nullptr && fgets(line, sizeof line, file.get()) != nullptr) {
    unsigned long long value = 0;
    if (sscanf(line, "Private_Dirty: %llu kB", &value) == 1) {
      kilobytes += value;
    }
  }
  return kilobytes * 1024;
}

}  // namespace

v1::GetStatusResponse SelfStatus() {
  v1::GetStatusResponse status;
  status.set_processes(CountProcesses());
  status.set_private_bytes(PrivateBytes());
  status.set_open_files(CountEntries("/proc/self/fd"));
  status.set_threads(CountEntries("/proc/self/task"));
  return status;
}

}  // namespace creel::shim
