#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace creel {

// Known secret values, and how they are taken out of text: each, in whatever form (FormsOf),
// becomes `[secret NAME]`. Immutable once built.
class SecretMask {
 public:
  SecretMask() = default;
  // Pairs of name and value. Values shorter than 6 bytes are left out: they are no secrets, and
  // would take ordinary words away.
  explicit SecretMask(const std::vector<std::pair<std::string, std::string>>& secrets);

  // Where text was cut, what stands at its end may be the beginning of one, and goes too.
  [[nodiscard]] std::string Apply(std::string_view text) const;
  // The names of those that are in the text.
  [[nodiscard]] std::set<std::string> Find(std::string_view text) const;

 private:
  struct Pattern {
    std::string name;
    std::string value;
    std::string instead;
  };
  std::vector<Pattern> patterns_;  // the longest first
};

}  // namespace creel
