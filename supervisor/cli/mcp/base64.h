#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace creel::cli::mcp {

// What Base64 of base/crypto.h made, as it was. nullopt: it made no such thing.
std::optional<std::string> DecodeBase64(std::string_view text);

}  // namespace creel::cli::mcp
