#include "supervisor/base/secret_forms.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "supervisor/base/crypto.h"

namespace creel {
namespace {

bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~").find(c) != std::string_view::npos;
}

std::string HexDigits(char c, bool upper) {
  const char* const digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(c);
  return {digits[byte >> 4], digits[byte & 15]};
}

template <typename Escape>
std::string Escaped(std::string_view value, const Escape& escape) {
  std::string out;
  for (const char c : value) {
    out += escape(c);
  }
  return out;
}

}  // namespace

std::vector<std::string> FormsOf(std::string_view value) {
  std::vector<std::string> forms{std::string(value), Base64(value)};
  // In the middle of something longer, base64 has three ways to write it; the characters at both
  // ends depend on the neighbours too.
  for (size_t shift = 0; shift < 3; ++shift) {
    const std::string coded = Base64(std::string(shift, 'x') + std::string(value));
    const size_t begin = shift == 0 ? 0 : shift + 1;
    const size_t end = (shift + value.size()) * 8 / 6;
    forms.push_back(coded.substr(begin, end - begin));
  }
  for (size_t i = 1, count = forms.size(); i < count; ++i) {
    std::string url_safe = forms[i];
    std::replace(url_safe.begin(), url_safe.end(), '+', '-');
    std::replace(url_safe.begin(), url_safe.end(), '/', '_');
    forms.push_back(std::move(url_safe));
  }
  // Percent-encoding, as libraries differ in it: of `/` or not, a space as `+`, in either case.
  for (const std::string_view plain : {"", "/"}) {
    for (const std::string_view space : {"%20", "+"}) {
      for (const bool upper : {true, false}) {
        forms.push_back(Escaped(value, [&](char c) -> std::string {
          if (IsUnreserved(c) || plain.find(c) != std::string_view::npos) {
            return {c};
          }
          return c == ' ' ? std::string(space) : "%" + HexDigits(c, upper);
        }));
      }
    }
  }
  for (const bool upper : {true, false}) {
    forms.push_back(Escaped(value, [&](char c) { return HexDigits(c, upper); }));
  }
  // JSON, with and without `\/`; Go's, and others made for HTML, write \u0026 too, in either case.
  for (const std::string_view slashed : {"\"\\/", "\"\\"}) {
    for (const std::string_view coded : {"", "<>&", "<>&'", "<>&'\"+"}) {
      for (const bool upper : {true, false}) {
        forms.push_back(Escaped(value, [&](char c) -> std::string {
          if (coded.find(c) != std::string_view::npos) {
            return "\\u00" + HexDigits(c, upper);
          }
          return slashed.find(c) != std::string_view::npos ? std::string("\\") + c
                                                           : std::string(1, c);
        }));
      }
    }
  }
  // HTML, whose two quotes have several names.
  for (const std::string_view quote : {"&quot;", "&#34;", "\""}) {
    for (const std::string_view apostrophe : {"&#39;", "&#x27;", "&apos;", "'"}) {
      forms.push_back(Escaped(value, [&](char c) {
        return std::string(c == '&'    ? "&amp;"
                           : c == '<'  ? "&lt;"
                           : c == '>'  ? "&gt;"
                           : c == '"'  ? quote
                           : c == '\'' ? apostrophe
                                       : std::string_view(&c, 1));
      }));
    }
  }
  std::sort(forms.begin(), forms.end());
  forms.erase(std::unique(forms.begin(), forms.end()), forms.end());
  return forms;
}

}  // namespace creel
