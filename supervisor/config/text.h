#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace creel {

// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool IsValidUtf8(std::string_view text);

// The one of `candidates` that a person who wrote `word` most likely meant; empty if none is near.
std::string Nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace creel
