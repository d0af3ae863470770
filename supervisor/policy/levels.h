#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/config/policy_config.h"

namespace creel {

// A trust level by its place: 0 is the lowest (`stranger`), higher is more.
using Level = int;

// A set of levels, bit N for level N.
using LevelMask = uint32_t;

// The trust levels of a configuration in their order.
class Levels {
 public:
  // At most 32, with different ranks, as the configuration was checked for.
  explicit Levels(const std::map<std::string, LevelConfig>& levels);

  // A name that there is no level of is the lowest: what a level meant that has been taken away is
  // not known.
  [[nodiscard]] Level Of(std::string_view name) const;
  [[nodiscard]] bool Has(std::string_view name) const;
  [[nodiscard]] const std::string& Name(Level level) const {
    return names_[static_cast<size_t>(level)];
  }
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  [[nodiscard]] static Level lowest() { return 0; }
  [[nodiscard]] Level highest() const { return static_cast<Level>(names_.size()) - 1; }
  [[nodiscard]] static bool In(LevelMask mask, Level level) { return (mask >> level & 1) != 0; }
  // `level` and all below it.
  [[nodiscard]] static LevelMask UpTo(Level level) {
    return static_cast<LevelMask>((uint64_t{2} << level) - 1);
  }

 private:
  std::vector<std::string> names_;  // lowest first
};

}  // namespace creel
