#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace creel::testing {

// What a child process left behind.
struct Finished {
  int exit_code = -1;  // 128 + signal if it was killed, as a shell says it
  std::string out;
  std::string err;
  std::chrono::duration<double> elapsed{};
};

// Runs a program to its end. `input` is its stdin. Killed after `timeout`.
Finished RunProgram(const std::vector<std::string>& argv, const std::string& input = "",
                    std::chrono::seconds timeout = std::chrono::seconds(60),
                    const std::vector<std::string>& extra_env = {});

// A program in the background; killed and reaped at the end of its life.
class Background {
 public:
  // Its output goes to `log_file`.
  Background(const std::vector<std::string>& argv, const std::string& log_file);
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool running();
  // Sends a signal and waits for the end; returns the exit code as Finished has it, -1 if it did not
  // end in time.
  int End(int signal, std::chrono::seconds timeout = std::chrono::seconds(20));

 private:
  pid_t pid_ = -1;
  int status_ = -1;
};

}  // namespace creel::testing
