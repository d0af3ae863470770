#pragma once

#include <CLI/CLI.hpp>

#include "supervisor/cli/connection.h"

namespace creel::cli {

// `creel incident …` and `creel panic`. `code` gets the exit status of the one that runs.
void AddIncidentCommands(CLI::App& app, const Globals& globals, int& code);

}  // namespace creel::cli
