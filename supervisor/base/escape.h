#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace creel {

// Text of unknown origin as it may stand in a message, a log line or on a terminal: valid UTF-8
// without control characters, marks that turn the direction of writing, or line separators; what
// is not is written as `\xNN`. Longer than `max_bytes` it is cut and ends in `…`. What has been
// through here once comes out of it unchanged.
std::string Printable(std::string_view text, size_t max_bytes);

}  // namespace creel
