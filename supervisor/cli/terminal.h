#pragma once

#include "creel/shim/v1/process.pb.h"

namespace creel::cli {

// Puts the terminal of stdin into raw mode for its life. However the process ends, short of
// SIGKILL, the terminal is put back: by the destructor, or by RestoreTerminal before an _exit, or
// by a handler when a fatal signal comes. At most one at a time.
class RawTerminal {
 public:
  RawTerminal();
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
};

// Puts the terminal back if it is raw. May be called from a signal handler and from any thread.
void RestoreTerminal();

// The size of the terminal of stdin or stdout; 24 by 80 where there is none.
shim::v1::TerminalSize SizeOfTerminal();

}  // namespace creel::cli
