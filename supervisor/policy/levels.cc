#include "supervisor/policy/levels.h"

#include <algorithm>

namespace creel {

Levels::Levels(const std::map<std::string, LevelConfig>& levels) {
  for (const auto& [name, level] : levels) {
    names_.push_back(name);
  }
  std::sort(names_.begin(), names_.end(), [&](const std::string& a, const std::string& b) {
    return levels.at(a).rank < levels.at(b).rank;
  });
}

Level Levels::Of(std::string_view name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  return found == names_.end() ? lowest() : static_cast<Level>(found - names_.begin());
}

bool Levels::Has(std::string_view name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

}  // namespace creel
