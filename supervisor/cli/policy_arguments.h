#pragma once

#include <CLI/CLI.hpp>

#include "supervisor/cli/connection.h"

namespace creel::cli {

// Adds `pairing`, `approvals`, `read-only`, `policy`, `explain`, `prompt` and `trust` to `app`.
// Their exit code goes to `code`; both and `globals` must outlive the parsing.
void AddPolicyCommands(CLI::App& app, const Globals& globals, int& code);

}  // namespace creel::cli
