#pragma once

#include <termios.h>

#include "creel/shim/v1/process.pb.h"

namespace creel::cli {

// Puts the terminal of stdin into raw mode, and back at the end of its life.
class RawTerminal {
 public:
  RawTerminal();
  ~RawTerminal() { Restore(); }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  void Restore();

 private:
  bool raw_ = false;
  termios before_{};
};

// The size of the terminal of stdin or stdout; 24 by 80 where there is none.
shim::v1::TerminalSize SizeOfTerminal();

}  // namespace creel::cli
