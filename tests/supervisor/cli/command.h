#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/unique_fd.h"

namespace creel {

struct CommandResult {
  int code = -1;  // 128 and the signal that ended it
  std::string out;
  std::string err;
};

// A child with pipes to its three streams. Killed and reaped at the end of its life.
class Command {
 public:
  Command(std::vector<std::string> words, const std::vector<std::string>& env) {
    int in[2];
    int out[2];
    int err[2];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
      std::abort();
    }
    std::vector<char*> argv;
    for (std::string& word : words) {
      argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    std::vector<std::string> pairs = env;
    std::vector<char*> envp;
    for (std::string& pair : pairs) {
      envp.push_back(pair.data());
    }
    envp.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      dup2(err[1], 2);
      execve(argv[0], argv.data(), envp.data());
      _exit(121);
    }
    ::close(in[0]);
    ::close(out[1]);
    ::close(err[1]);
    in_ = UniqueFd(in[1]);
    out_ = UniqueFd(out[0]);
    err_ = UniqueFd(err[0]);
  }
  ~Command() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  pid_t pid() const { return pid_; }
  int in() const { return in_.get(); }
  void CloseIn() { in_.reset(); }
  void CloseOut() { out_.reset(); }

  // Reads stdout until it holds `text`; false if that does not come in time.
  bool WaitFor(const std::string& text) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (result_.out.find(text) == std::string::npos) {
      if (std::chrono::steady_clock::now() > until || !ReadSome(out_, result_.out, 100)) {
        return false;
      }
    }
    return true;
  }

  // Feeds `input`, reads all there is, and waits for the end.
  CommandResult Finish(std::string_view input = "") {
    fcntl(in_.get(), F_SETFL, O_NONBLOCK);
    bool more = true;
    while (more) {
      if (in_.valid()) {
        const ssize_t written = write(in_.get(), input.data(), input.size());
        if (written > 0) {
          input.remove_prefix(static_cast<size_t>(written));
        }
        if (input.empty() || (written < 0 && errno != EAGAIN)) {
          in_.reset();
        }
      }
      more = ReadSome(out_, result_.out, 5);
      more = ReadSome(err_, result_.err, more ? 0 : 5) || more;
    }
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    result_.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return result_;
  }

 private:
  // False at the end of file.
  static bool ReadSome(UniqueFd& fd, std::string& to, int timeout_ms) {
    if (!fd.valid()) {
      return false;
    }
    pollfd waiting{fd.get(), POLLIN, 0};
    if (poll(&waiting, 1, timeout_ms) == 0) {
      return true;
    }
    std::string buffer(64u << 10, '\0');
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got <= 0) {
      fd.reset();
      return false;
    }
    to.append(buffer.data(), static_cast<size_t>(got));
    return true;
  }

  pid_t pid_ = -1;
  UniqueFd in_;
  UniqueFd out_;
  UniqueFd err_;
  CommandResult result_;
};

// `creel` with these words, told of the doors in `run_dir` by its environment.
inline std::vector<std::string> CreelWords(std::vector<std::string> words) {
  words.insert(words.begin(), CREEL_BINARY);
  return words;
}
inline std::vector<std::string> CreelEnv(const std::string& run_dir,
                                         std::vector<std::string> more = {}) {
  more.push_back("CREEL_RUN_DIR=" + run_dir);
  more.push_back("PATH=/usr/bin:/bin");
  return more;
}
inline CommandResult Creel(const std::string& run_dir, std::vector<std::string> words,
                           std::string_view input = "", std::vector<std::string> env = {}) {
  Command command(CreelWords(std::move(words)), CreelEnv(run_dir, std::move(env)));
  return command.Finish(input);
}

}  // namespace creel
