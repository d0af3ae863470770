#pragma once

#include <string>
#include <vector>

namespace creel::cli {

// Becomes `creel-verify`, which is found beside this program, in /usr/lib/creel or on the path: it
// has what this one does without, a decompressor and signatures. Returns only if that fails, with
// the exit status.
int BecomeVerify(const std::vector<std::string>& arguments);

}  // namespace creel::cli
