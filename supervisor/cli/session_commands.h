#pragma once

#include <string>
#include <vector>

#include "supervisor/cli/connection.h"

namespace creel::cli {

struct OpenSettings {
  std::string session;
  std::string sender;
  std::string workspace;
  std::string access;  // none | ro | rw; empty: rw with a workspace, else as configured
  std::vector<std::string> env;
};

// The commands that speak to the operator's door. Each returns the exit status.
int Open(const Globals& globals, const OpenSettings& settings);
int Close(const Globals& globals, const std::string& session, bool force);
int Freeze(const Globals& globals, const std::string& session, const std::string& reason);
int Thaw(const Globals& globals, const std::string& session);
int List(const Globals& globals, bool usage);
int Inspect(const Globals& globals, const std::string& session);
// Once, or again each second until interrupted where stdout is a terminal.
int Top(const Globals& globals, const std::string& session);
// About the supervisor; with `gateway_config`, a file (`-`: stdin), about that gateway's
// configuration. 1 if any finding is severe.
int Doctor(const Globals& globals, bool fix, const std::string& gateway_config);
int Version(const Globals& globals);

}  // namespace creel::cli
