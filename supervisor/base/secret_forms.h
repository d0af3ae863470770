#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace creel {

// A secret in the forms in which programs pass one on, each once: as it is, percent-encoded, as
// base64 (also as it stands within something longer), in hexadecimal, and escaped for JSON or HTML.
// The one list of them: whoever takes secrets out of text looks for these.
std::vector<std::string> FormsOf(std::string_view value);

}  // namespace creel
