#pragma once

#include <CLI/App.hpp>

#include "supervisor/cli/connection.h"

namespace creel::cli {

// Adds `egress` with `log`, `explain`, `test`, `credentials`, `revoke` and `restore` to `app`.
// `globals` and `code`, which gets the exit status, must outlive it.
void AddEgressCommands(CLI::App& app, const Globals& globals, int& code);

}  // namespace creel::cli
