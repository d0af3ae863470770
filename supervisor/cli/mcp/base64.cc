#include "supervisor/cli/mcp/base64.h"

#include <cstdint>

namespace creel::cli::mcp {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::optional<std::string> DecodeBase64(std::string_view text) {
  if (text.size() % 4 != 0) {
    return std::nullopt;
  }
  std::string data;
  data.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    uint32_t bits = 0;
    size_t padding = 0;
    for (size_t k = 0; k < 4; ++k) {
      const char c = text[i + k];
      const size_t value = kAlphabet.find(c);
      if (c == '=' && i + 4 == text.size() && k >= 2) {
        ++padding;
      } else if (value == std::string_view::npos || padding > 0) {
        return std::nullopt;
      }
      bits = bits << 6 | static_cast<uint32_t>(c == '=' ? 0 : value);
    }
    for (size_t k = 0; k < 3 - padding; ++k) {
      data += static_cast<char>(bits >> (16 - 8 * k) & 255);
    }
  }
  return data;
}

}  // namespace creel::cli::mcp
