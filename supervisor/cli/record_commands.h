#pragma once

#include <CLI/CLI.hpp>

#include "supervisor/cli/connection.h"

namespace creel::cli {

// `creel audit …`. `code` gets the exit status of the one that runs.
void AddRecordCommands(CLI::App& app, const Globals& globals, int& code);

}  // namespace creel::cli
