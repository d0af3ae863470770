#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace creel::cli::mcp {

// RFC 4648, with padding and without line breaks.
std::string EncodeBase64(std::string_view data);
// nullopt: it is not that.
std::optional<std::string> DecodeBase64(std::string_view text);

}  // namespace creel::cli::mcp
