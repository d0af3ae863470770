#include "supervisor/base/escape.h"

#include <fmt/format.h>

#include <cstdint>
#include <iterator>

namespace creel {
namespace {

// Decodes the first character of `text`, which is not empty. Returns its length in bytes, or 0 if
// it is not UTF-8 (overlong forms, surrogates and what lies past U+10FFFF included).
size_t Decode(std::string_view text, uint32_t& character) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) {
    character = first;
    return 1;
  }
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (length == 0 || first > 0xF4 || text.size() < length) {
    return 0;
  }
  character = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xC0) != 0x80) {
      return 0;
    }
    character = character << 6 | (next & 0x3F);
  }
  const bool overlong = (length == 3 && character < 0x800) || (length == 4 && character < 0x10000);
  const bool surrogate = character >= 0xD800 && character <= 0xDFFF;
  return overlong || surrogate || character > 0x10FFFF ? 0 : length;
}

bool IsHarmless(uint32_t c) {
  const bool control = c < 0x20 || (c >= 0x7F && c <= 0x9F);
  const bool direction = c == 0x061C || c == 0x200E || c == 0x200F ||
                         (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
  const bool separator = c == 0x2028 || c == 0x2029;
  const bool invisible = c == 0xFEFF || (c >= 0xE0000 && c <= 0xE007F);
  return !control && !direction && !separator && !invisible;
}

}  // namespace

std::string Printable(std::string_view text, size_t max_bytes) {
  constexpr std::string_view kCut = "…";
  std::string out;
  // Where to cut, should the rest turn out not to fit.
  size_t cut_at = 0;
  while (!text.empty()) {
    if (out.size() + kCut.size() <= max_bytes) {
      cut_at = out.size();
    }
    uint32_t character = 0;
    size_t length = Decode(text, character);
    if (length != 0 && IsHarmless(character)) {
      out += text.substr(0, length);
    } else {
      length = length == 0 ? 1 : length;
      for (const char byte : text.substr(0, length)) {
        fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(byte));
      }
    }
    if (out.size() > max_bytes) {
      out.resize(cut_at);
      return max_bytes < kCut.size() ? out : out.append(kCut);
    }
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace creel
