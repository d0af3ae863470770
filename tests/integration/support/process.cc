#include "tests/integration/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "supervisor/base/unique_fd.h"

extern char** environ;

namespace creel::testing {
namespace {

using Steady = std::chrono::steady_clock;

struct Pipe {
  UniqueFd read;
  UniqueFd write;
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
      throw std::runtime_error("no pipe");
    }
    read.reset(ends[0]);
    write.reset(ends[1]);
  }
};

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& each : strings) {
    pointers.push_back(const_cast<char*>(each.c_str()));
  }
  return pointers;
}

pid_t Spawn(const std::vector<std::string>& argv, posix_spawn_file_actions_t* actions,
            const std::vector<std::string>& extra_env) {
  std::vector<char*> arguments = Pointers(argv);
  arguments.push_back(nullptr);
  std::vector<char*> variables = Pointers(extra_env);
  for (char** each = environ; *each != nullptr; ++each) {
    variables.push_back(*each);
  }
  variables.push_back(nullptr);
  pid_t pid = -1;
  const int error =
      posix_spawnp(&pid, arguments[0], actions, nullptr, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(actions);
  if (error != 0) {
    throw std::runtime_error("cannot run " + argv[0]);
  }
  return pid;
}

int CodeOf(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

Finished RunProgram(const std::vector<std::string>& argv, const std::string& input,
                    std::chrono::seconds timeout, const std::vector<std::string>& extra_env) {
  signal(SIGPIPE, SIG_IGN);
  Pipe in;
  Pipe out;
  Pipe err;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.read.get(), 0);
  posix_spawn_file_actions_adddup2(&actions, out.write.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, err.write.get(), 2);
  const auto begin = Steady::now();
  const pid_t pid = Spawn(argv, &actions, extra_env);
  in.read.reset();
  out.write.reset();
  err.write.reset();
  fcntl(in.write.get(), F_SETFL, O_NONBLOCK);

  Finished finished;
  size_t fed = 0;
  if (input.empty()) {
    in.write.reset();
  }
  std::vector<char> buffer(1 << 16);
  const auto deadline = begin + timeout;
  bool killed = false;
  while (out.read.valid() || err.read.valid()) {
    std::array<pollfd, 3> polled{{{out.read.get(), POLLIN, 0},
                                  {err.read.get(), POLLIN, 0},
                                  {in.write.get(), POLLOUT, 0}}};
    poll(polled.data(), polled.size(), 100);
    if (Steady::now() > deadline && !killed) {
      kill(pid, SIGKILL);
      killed = true;
    }
    if (Steady::now() > deadline + std::chrono::seconds(2)) {
      break;
    }
    for (int i = 0; i < 2; ++i) {
      UniqueFd& fd = i == 0 ? out.read : err.read;
      if (fd.valid() && polled[static_cast<size_t>(i)].revents != 0) {
        const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
        if (got <= 0) {
          fd.reset();
        } else {
          (i == 0 ? finished.out : finished.err).append(buffer.data(), static_cast<size_t>(got));
        }
      }
    }
    if (in.write.valid() && polled[2].revents != 0) {
      const ssize_t put = write(in.write.get(), input.data() + fed, input.size() - fed);
      fed += put > 0 ? static_cast<size_t>(put) : 0;
      if ((put < 0 && errno != EAGAIN) || fed == input.size()) {
        in.write.reset();
      }
    }
  }
  int status = 0;
  waitpid(pid, &status, 0);
  finished.exit_code = CodeOf(status);
  finished.elapsed = Steady::now() - begin;
  return finished;
}

Background::Background(const std::vector<std::string>& argv, const std::string& log_file) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                   0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_ = Spawn(argv, &actions, {});
}

Background::~Background() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

bool Background::running() {
  if (pid_ > 0 && waitpid(pid_, &status_, WNOHANG) == pid_) {
    pid_ = -1;
  }
  return pid_ > 0;
}

int Background::End(int signal, std::chrono::seconds timeout) {
  if (pid_ > 0) {
    kill(pid_, signal);
  }
  const auto deadline = Steady::now() + timeout;
  while (running()) {
    if (Steady::now() > deadline) {
      return -1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return CodeOf(status_);
}

}  // namespace creel::testing
