#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace creel::shim {

// What goes over the socket between PID 1 and a reaper, both of the same binary. Plain memory: the
// reaper's side runs in a forked process that must not allocate.

// One launch: this header, and then `body_bytes` of strings, each ended by NUL: the working
// directory, `argc` arguments, `envc` environment strings. A large body is in a sealed memfd
// instead. With it come the descriptors for stdin, stdout and stderr, then the memfd if any.
struct LaunchHeader {
  uint32_t argc;
  uint32_t envc;
  uint32_t body_bytes;
  uint32_t in_memfd;
  // Make stdin, a terminal, the controlling one.
  uint32_t terminal;
  uint32_t uid;
  uint32_t gid;
  int32_t nice;
  int32_t oom_score_adj;
  // The command's mark (marks.h), for a kernel without child subreapers; else 0.
  uint32_t mark;
  uint64_t open_files;
};

// The largest packet; what is longer goes through a memfd.
constexpr size_t kMaxLaunchPacket = 32 * 1024;

// What a reaper reports.
enum class ReportKind : uint32_t {
  kReady = 1,    // the reaper lives; `pid` is its own
  kStarted = 2,  // `pid` runs the command
  kFailed = 3,   // no command runs: `value` is the errno, `step` a StartStep
  // The command ended; `value` is its wait status. `empty`: and the reaper has no child any more,
  // which means that nothing is left of the command, where there are subreapers.
  kExited = 4,
  kEmpty = 5,  // no descendant is left; the reaper waits for the next launch
};

struct Report {
  ReportKind kind;
  pid_t pid;
  int32_t value;
  uint32_t step;
  uint32_t empty;
};

}  // namespace creel::shim
