#include "supervisor/audit/mask.h"

#include <fmt/format.h>

#include <algorithm>

#include "supervisor/base/secret_forms.h"

namespace creel {
namespace {

constexpr size_t kShortest = 6;
constexpr std::string_view kMark = "[secret ";
// The mark of Printable().
constexpr std::string_view kCut = "…";

}  // namespace

SecretMask::SecretMask(const std::vector<std::pair<std::string, std::string>>& secrets) {
  for (const auto& [name, value] : secrets) {
    if (value.size() < kShortest) {
      continue;
    }
    const std::string instead = fmt::format("[secret {}]", name);
    for (std::string& form : FormsOf(value)) {
      patterns_.push_back({name, std::move(form), instead});
    }
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
