#pragma once

#include <CLI/CLI.hpp>

#include "supervisor/cli/connection.h"

namespace creel::cli {

// Adds `page`, `logs`, `events` and `top` without a session: what the page shows, on the terminal.
// Their callbacks set `code`.
void AddWatchCommands(CLI::App& app, const Globals& globals, int& code);

// What all sandboxes use: once, or again each second where stdout is a terminal.
int TopAll(const Globals& globals);

}  // namespace creel::cli
