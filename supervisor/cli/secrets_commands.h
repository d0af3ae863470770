#pragma once

#include <CLI/CLI.hpp>

#include "supervisor/cli/connection.h"

namespace creel::cli {

// `creel secrets`. What they return goes to `code`.
void AddSecretsCommands(CLI::App& app, const Globals& globals, int& code);

}  // namespace creel::cli
