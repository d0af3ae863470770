#include "supervisor/audit/mask.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <iterator>

#include "supervisor/base/crypto.h"

namespace creel {
namespace {

constexpr size_t kShortest = 6;
constexpr std::string_view kMark = "[secret ";
// The mark of Printable().
constexpr std::string_view kCut = "…";

// Without the last one to three characters, which depend on what follows in the encoded text.
std::string Base64Stem(std::string_view data) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i + 2 < data.size(); i += 3) {
    const auto byte = [&](size_t at) { return static_cast<unsigned char>(data[i + at]); };
    const unsigned bits = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (const int shift : {18, 12, 6, 0}) {
      out += kDigits[bits >> shift & 63];
    }
  }
  return out;
}

std::string UrlEncoded(std::string_view data, bool upper) {
  std::string out;
  for (const char c : data) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' ||
        c == '~') {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      if (upper) {
        fmt::format_to(std::back_inserter(out), "%{:02X}", byte);
      } else {
        fmt::format_to(std::back_inserter(out), "%{:02x}", byte);
      }
    }
  }
  return out;
}

}  // namespace

SecretMask::SecretMask(const std::vector<std::pair<std::string, std::string>>& secrets) {
  for (const auto& [name, value] : secrets) {
    if (value.size() < kShortest) {
      continue;
    }
    const std::string instead = fmt::format("[secret {}]", name);
    patterns_.push_back({name, value, instead});
    for (const bool upper : {true, false}) {
      if (std::string url = UrlEncoded(value, upper); url != value) {
        patterns_.push_back({name, std::move(url), instead});
      }
    }
    // Wherever it begins in what is encoded, as after the user's name of `Authorization: Basic`.
    for (size_t skip = 0; skip < 3; ++skip) {
      std::string base64 = Base64Stem(std::string_view(value).substr(skip));
      if (base64.size() < 8) {
        continue;
      }
      std::string url = base64;
      std::replace(url.begin(), url.end(), '+', '-');
      std::replace(url.begin(), url.end(), '/', '_');
      if (url != base64) {
        patterns_.push_back({name, std::move(url), instead});
      }
      patterns_.push_back({name, std::move(base64), instead});
    }
    std::string hex = Hex(value);
    std::string upper = hex;
    std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) {
      return static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    });
    patterns_.push_back({name, std::move(hex), instead});
    patterns_.push_back({name, std::move(upper), instead});
  }
  std::stable_sort(patterns_.begin(), patterns_.end(), [](const Pattern& a, const Pattern& b) {
    return a.value.size() > b.value.size();
  });
}

std::string SecretMask::Apply(std::string_view text) const {
  std::string out(text);
  // Nobody else writes our mark.
  for (size_t at = out.find(kMark); at != std::string::npos; at = out.find(kMark, at + 2)) {
    out.insert(at + 1, 1, '\\');
  }
  for (const Pattern& pattern : patterns_) {
    for (size_t at = out.find(pattern.value); at != std::string::npos;
         at = out.find(pattern.value, at + pattern.instead.size())) {
      out.replace(at, pattern.value.size(), pattern.instead);
    }
  }
  // Who cut the text before may have marked the place.
  std::string_view kept(out);
  if (kept.ends_with(kCut)) {
    kept.remove_suffix(kCut.size());
  }
  for (const Pattern& pattern : patterns_) {
    for (size_t size = std::min(pattern.value.size() - 1, kept.size()); size >= kShortest; --size) {
      if (kept.ends_with(std::string_view(pattern.value).substr(0, size))) {
        out.replace(kept.size() - size, size, pattern.instead);
        return out;
      }
    }
  }
  return out;
}

std::set<std::string> SecretMask::Find(std::string_view text) const {
  std::set<std::string> found;
  for (const Pattern& pattern : patterns_) {
    if (!found.contains(pattern.name) && text.find(pattern.value) != std::string_view::npos) {
      found.insert(pattern.name);
    }
  }
  return found;
}

}  // namespace creel
