#pragma once

#include <string>
#include <vector>

#include "supervisor/cli/connection.h"

namespace creel::cli {

struct ExecOptions {
  std::string session;
  std::string sender;
  std::string cwd;
  std::vector<std::string> env;  // NAME=VALUE, or NAME: the value of our own environment
  // A line NAME=VALUE each, where `#` starts a comment; or, if it holds a NUL byte, NAME=VALUE and
  // NUL each, for values of several lines.
  std::string env_file;
  int env_fd = -1;         // the same from a descriptor
  std::string process_id;  // empty: the supervisor makes one
  std::string tool_call_id;
  std::string pty;      // "ROWSxCOLUMNS": a terminal for the command where we have none
  std::string timeout;  // "30s"; empty: none
  bool interactive = false;
  bool terminal = false;
  std::vector<std::string> command;
};

// Runs a command in a sandbox with our stdin, stdout and stderr. Returns the command's exit status;
// 128 and the signal that ended it; 125: Creel failed, 126: it cannot be executed, 127: there is no
// such command, 124: its time ran out.
int Exec(const Globals& globals, const ExecOptions& options);

}  // namespace creel::cli
