#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "supervisor/policy/span.h"

namespace creel {

// Finds paths of the host: below home folders, and below `folders`. Kind `path.host`.
void FindHostPaths(std::string_view text, const std::vector<std::string>& folders, Spans& found);

// Finds what `ls -l`, `find`, `du`, `tree`, `dir`, Get-ChildItem and their likes print, lists and
// arrays of paths, and a plain `ls` of a home folder. Kind `listing`. Drawings of a project's own
// tree, diffs, code and its settings are none.
void FindListings(std::string_view text, Spans& found);

}  // namespace creel
