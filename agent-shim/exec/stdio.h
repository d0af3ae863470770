#pragma once

#include <cstdint>
#include <optional>

#include "agent-shim/exec/tool_user.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

struct WindowSize {
  uint16_t rows = 24;
  uint16_t columns = 80;
};

// Both ends of a command's stdin, stdout and stderr. Ours do not block.
struct Stdio {
  // The command's. With a terminal all three are its slave side.
  UniqueFd child_in;
  UniqueFd child_out;
  UniqueFd child_err;
  // Ours. With a terminal, `out` is the master, read and written, and the others are not set;
  // without input `in` is not set.
  UniqueFd in;
  UniqueFd out;
  UniqueFd err;
};

// Pipes for a command. Without `input` its stdin is at its end at once.
absl::StatusOr<Stdio> MakePipes(bool input, const ToolUser& user);
// A terminal for a command.
absl::StatusOr<Stdio> MakeTerminal(const WindowSize& size, const ToolUser& user);

// The terminal whose master this is has a new size; its foreground group gets SIGWINCH.
absl::Status Resize(int master, const WindowSize& size);

}  // namespace creel::shim
