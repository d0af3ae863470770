#pragma once

#include <sys/types.h>

#include <vector>

namespace creel::shim {

// How a command's processes are known where the kernel has no child subreapers (gVisor): each
// command has a supplementary group of its own, its mark. It is inherited, and only a process with
// CAP_SETGID, which no tool has, can lay it off. In a user namespace of its own a process has that
// capability, and may call its groups what it likes; so what is in another user namespace than PID
// 1 counts as unmarked. Nothing legitimate is.

// Marks come from a range that no other group is expected in.
constexpr gid_t kFirstMark = 3'900'000'000;
constexpr gid_t kMarks = 1u << 20;
// The one to give after `mark`.
constexpr gid_t NextMark(gid_t mark) { return kFirstMark + (mark - kFirstMark + 1) % kMarks; }

// Whether this kernel has child subreapers: asked of a child, since for PID 1 gVisor says yes.
// Forks, so it is best called early.
bool HasSubreapers();

// A process as /proc shows it.
struct MarkedProcess {
  pid_t pid = 0;
  pid_t parent = 0;
  bool zombie = false;
  gid_t mark = 0;  // 0: none that counts
};

// All processes of this pid namespace, in the order of their numbers. What is forked while they are
// read may be missing. But if nobody reaps PID 1's children meanwhile, then of a command that has
// processes at the beginning at least one is in the list, alive or as a zombie: the oldest line of
// them hangs on PID 1 and stays until it is reaped, and what is forked later has a higher number.
std::vector<MarkedProcess> ListMarked();

}  // namespace creel::shim
