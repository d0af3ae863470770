#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "supervisor/policy/span.h"

namespace creel {

// Finds paths of the host: below home folders, and below `folders`. Kind `path.host`.
void FindHostPaths(std::string_view text, const std::vector<std::string>& folders, Spans& found);

// Finds what `ls -l`, `find`, `tree`, `dir` and a plain `ls` of a home folder print. Kind
// `listing`. Drawings of a project's own tree, diffs and code are none.
void FindListings(std::string_view text, Spans& found);

}  // namespace creel
