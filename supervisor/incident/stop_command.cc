#include "supervisor/incident/stop_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "supervisor/base/clock.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/unique_fd.h"

namespace creel {
namespace {

constexpr size_t kKept = 2048;

int MillisLeft(Deadline deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

}  // namespace

CommandEnd RunOperatorCommand(const std::vector<std::string>& argv, std::chrono::seconds timeout) {
  std::vector<char*> arguments;
  for (const std::string& word : argv) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  char* const environment[] = {path, nullptr};
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return {.ok = false, .told = "it could not be started: no pipe"};
  }
  UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGPIPE, SIG_DFL);
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, 0);
    ::dup2(writing.get(), 1);
    ::dup2(writing.get(), 2);
    ::execve(arguments[0], arguments.data(), environment);
    ::_exit(127);
  }
  if (child < 0) {
    return {
        .ok = false,
        .told = fmt::format("it could not be started: {}", std::system_category().message(errno))};
  }
  writing.reset();
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  const Deadline deadline = After(timeout);
  std::string output;
  bool ended = false;
  bool open = true;
  while (!ended) {
    pollfd fds[] = {{process.get(), POLLIN, 0}, {open ? reading.get() : -1, POLLIN, 0}};
    const int left = MillisLeft(deadline);
    if (left == 0 || ::poll(fds, 2, left) < 0) {
      if (left == 0) {
        break;
      }
      continue;
    }
    if (fds[1].revents != 0) {
      char buffer[4096];
      const ssize_t got = ::read(reading.get(), buffer, sizeof(buffer));
      open = got > 0;
      output.append(buffer, static_cast<size_t>(std::max<ssize_t>(got, 0)));
      output.erase(0, output.size() > kKept ? output.size() - kKept : 0);
    }
    ended = fds[0].revents != 0 && (!open || fds[1].revents == 0);
  }
  if (!ended) {
    ::kill(-child, SIGKILL);
    ::kill(child, SIGKILL);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const std::string said =
      output.empty() ? "" : fmt::format("; it said: {}", Printable(output, 1024));
  if (!ended) {
    return {
        .ok = false,
        .told = fmt::format("it did not end within {} s and was killed{}", timeout.count(), said)};
  }
  if (WIFSIGNALED(status)) {
    return {.ok = false, .told = fmt::format("it ended by signal {}{}", WTERMSIG(status), said)};
  }
  return {.ok = WEXITSTATUS(status) == 0,
          .told = fmt::format("it ended with exit code {}{}", WEXITSTATUS(status), said)};
}

std::string RunStopCommand(const std::vector<std::string>& argv, std::chrono::seconds timeout) {
  return argv.empty() ? "no command is configured (incident.stop_gateway)"
                      : RunOperatorCommand(argv, timeout).told;
}

}  // namespace creel
