#pragma once

#include <sys/types.h>

#include <set>
#include <vector>

namespace creel::shim {

// A process as /proc shows it.
struct ProcessEntry {
  pid_t pid = 0;
  pid_t parent = 0;
  bool zombie = false;
};

// All processes of this pid namespace. A picture that is out of date when it is done: what forks and
// ends faster than it is read may be missing.
std::vector<ProcessEntry> ListProcesses();

// Sends SIGKILL to all that descend from `ancestor`, itself not included, but not to `spared` nor to
// what is below those. Returns those that it found alive.
std::vector<pid_t> KillDescendants(pid_t ancestor, const std::set<pid_t>& spared = {});

// How many processes there are; zombies not counted.
int CountProcesses();

}  // namespace creel::shim
