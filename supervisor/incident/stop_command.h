#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace creel {

struct CommandEnd {
  bool ok = false;   // it ended by itself, with exit code 0
  std::string told;  // what became of it, as a sentence with the end of what it wrote
};

// Runs a program of the operator's, without a shell, and with nothing of ours but PATH. Killed with
// its process group when `timeout` is over.
CommandEnd RunOperatorCommand(const std::vector<std::string>& argv, std::chrono::seconds timeout);

// The same for the one that ends the gateway. Returns what became of it.
std::string RunStopCommand(const std::vector<std::string>& argv, std::chrono::seconds timeout);

}  // namespace creel
