#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace creel {

// A session key with `*` for any text, such as `agent:*:whatsapp:group:*`.
class SessionPattern {
 public:
  explicit SessionPattern(std::string_view pattern);
  [[nodiscard]] bool Matches(std::string_view session) const;

 private:
  std::vector<std::string> pieces_;  // between the stars; one alone: the whole key
};

}  // namespace creel
