#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace creel {

// Runs the operator's program that ends the gateway, without a shell, and with nothing of ours but
// PATH. Killed with its process group when `timeout` is over. Returns what became of it, as a
// sentence with the end of what it wrote.
std::string RunStopCommand(const std::vector<std::string>& argv, std::chrono::seconds timeout);

}  // namespace creel
