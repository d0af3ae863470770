#include "supervisor/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

namespace creel::cli {

RawTerminal::RawTerminal() {
  if (tcgetattr(STDIN_FILENO, &before_) != 0) {
    return;
  }
  termios raw = before_;
  cfmakeraw(&raw);
  raw_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void RawTerminal::Restore() {
  if (raw_) {
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
    raw_ = false;
  }
}

shim::v1::TerminalSize SizeOfTerminal() {
  winsize size{};
  shim::v1::TerminalSize told;
  if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) {
    told.set_rows(size.ws_row);
    told.set_columns(size.ws_col);
  }
  return told;
}

}  // namespace creel::cli
