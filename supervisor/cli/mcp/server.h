#pragma once

#include <string>

#include "supervisor/cli/connection.h"

namespace creel::cli::mcp {

struct ServerOptions {
  std::string session;
  std::string sender;
};

// Serves the Model Context Protocol on stdin and stdout until stdin ends. Returns the exit status.
int Serve(const Globals& globals, const ServerOptions& options);

}  // namespace creel::cli::mcp
