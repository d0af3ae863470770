#include "agent-shim/exec/stdio.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace creel::shim {
namespace {

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "make a pipe");
  }
  return Pipe{.read = UniqueFd(fds[0]), .write = UniqueFd(fds[1])};
}

// The two ends of a pipe have flags of their own, so the command's stays a blocking one.
void Unblock(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

absl::StatusOr<UniqueFd> OpenSlave(int master) {
  // Not by its name, which a tool could have mounted or moved something over.
  UniqueFd slave(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (slave.valid()) {
    return slave;
  }
  int number = 0;
  if (ioctl(master, TIOCGPTN, &number) != 0) {
    return ErrnoStatus(errno, "find a terminal's number");
  }
  slave.reset(open(fmt::format("/dev/pts/{}", number).c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave.valid()) {
    return ErrnoStatus(errno, "open a terminal");
  }
  return slave;
}

}  // namespace

absl::StatusOr<Stdio> MakePipes(bool input, const ToolUser& user) {
  const AsToolUser identity(user);
  RETURN_IF_ERROR(identity.status());
  Stdio stdio;
  if (input) {
    ASSIGN_OR_RETURN(Pipe in, MakePipe());
    stdio.child_in = std::move(in.read);
    stdio.in = std::move(in.write);
    Unblock(stdio.in.get());
  } else {
    stdio.child_in.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!stdio.child_in.valid()) {
      ASSIGN_OR_RETURN(Pipe in, MakePipe());
      stdio.child_in = std::move(in.read);
    }
  }
  ASSIGN_OR_RETURN(Pipe out, MakePipe());
  stdio.child_out = std::move(out.write);
  stdio.out = std::move(out.read);
  Unblock(stdio.out.get());
  ASSIGN_OR_RETURN(Pipe err, MakePipe());
  stdio.child_err = std::move(err.write);
  stdio.err = std::move(err.read);
  Unblock(stdio.err.get());
  return stdio;
}

absl::StatusOr<Stdio> MakeTerminal(const WindowSize& size, const ToolUser& user) {
  const AsToolUser identity(user);
  RETURN_IF_ERROR(identity.status());
  Stdio stdio;
  stdio.out.reset(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!stdio.out.valid()) {
    return ErrnoStatus(errno, "make a terminal");
  }
  int locked = 0;
  if (ioctl(stdio.out.get(), TIOCSPTLCK, &locked) != 0) {
    return ErrnoStatus(errno, "unlock a terminal");
  }
  RETURN_IF_ERROR(Resize(stdio.out.get(), size));
  ASSIGN_OR_RETURN(stdio.child_in, OpenSlave(stdio.out.get()));
  stdio.child_out.reset(fcntl(stdio.child_in.get(), F_DUPFD_CLOEXEC, 0));
  stdio.child_err.reset(fcntl(stdio.child_in.get(), F_DUPFD_CLOEXEC, 0));
  if (!stdio.child_out.valid() || !stdio.child_err.valid()) {
    return ErrnoStatus(errno, "copy a terminal's descriptor");
  }
  return stdio;
}

absl::Status Resize(int master, const WindowSize& size) {
  winsize window{};
  window.ws_row = size.rows;
  window.ws_col = size.columns;
  if (ioctl(master, TIOCSWINSZ, &window) != 0) {
    return ErrnoStatus(errno, "set a terminal's size");
  }
  return absl::OkStatus();
}

}  // namespace creel::shim
