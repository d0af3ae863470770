#include "supervisor/cli/terminal.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>

namespace creel::cli {
namespace {

// What a handler needs, and so at file scope; written before `is_raw` is.
termios before_raw;
std::atomic<bool> is_raw = false;

void OnFatal(int signal) {
  RestoreTerminal();
  raise(signal);  // with SA_RESETHAND: for good
}

}  // namespace

RawTerminal::RawTerminal() {
  if (tcgetattr(STDIN_FILENO, &before_raw) != 0) {
    return;
  }
  struct sigaction action {};
  action.sa_handler = OnFatal;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    sigaction(signal, &action, nullptr);
  }
  termios raw = before_raw;
  cfmakeraw(&raw);
  is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

RawTerminal::~RawTerminal() { RestoreTerminal(); }

void RestoreTerminal() {
  if (is_raw.exchange(false)) {
    tcsetattr(STDIN_FILENO, TCSANOW, &before_raw);
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
