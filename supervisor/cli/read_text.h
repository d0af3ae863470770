#pragma once

#include <optional>
#include <string>

namespace creel::cli {

// The text of a file of at most 1 MiB, `-` being stdin; nothing if it cannot be read, which has
// been told.
std::optional<std::string> ReadText(const std::string& file);

}  // namespace creel::cli
