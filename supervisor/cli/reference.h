#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

namespace creel::cli {

// What a manual page says besides that which `--help` says.
struct ManualText {
  int section = 1;
  // Paragraphs of troff after OPTIONS and COMMANDS.
  std::string more;
};

// If the only argument is `--reference=KIND`, prints the manual page (KIND `man`) or the
// completions for a shell (`bash`, `zsh`, `fish`), all from the same tree that `--help` prints, and
// returns the exit status. Packaging calls this; it is not for people, so no help names it.
std::optional<int> PrintReference(const CLI::App& app, const ManualText& text, int argc,
                                  char** argv);

// The parts of it, for tests. `name` is the program's.
std::string ManualPage(const CLI::App& app, const std::string& name, const ManualText& text);
std::string BashCompletion(const CLI::App& app, const std::string& name);
std::string ZshCompletion(const CLI::App& app, const std::string& name);
std::string FishCompletion(const CLI::App& app, const std::string& name);

}  // namespace creel::cli
