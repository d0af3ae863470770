#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "supervisor/cli/mcp/json_rpc.h"

namespace creel::cli::mcp {

// Holds `value` against the part of JSON Schema that our tools' schemas use: type, enum, required,
// properties, additionalProperties, items, minimum, maximum, minLength and maxItems. The
// error names the argument; nullopt: it fits.
std::optional<std::string> FindMisfit(const Json& schema, const Json& value,
                                      std::string_view name = "arguments");

// Arguments that were held against their schema; one that is missing has its default.
class Arguments {
 public:
  explicit Arguments(const Json& json) : json_(json) {}
  [[nodiscard]] bool has(const char* name) const { return json_.contains(name); }
  [[nodiscard]] std::string Text(const char* name, const std::string& otherwise = "") const {
    return json_.value(name, otherwise);
  }
  [[nodiscard]] bool Flag(const char* name, bool otherwise = false) const {
    return json_.value(name, otherwise);
  }
  [[nodiscard]] uint64_t Number(const char* name, uint64_t otherwise) const {
    return json_.value(name, otherwise);
  }
  [[nodiscard]] double Fraction(const char* name, double otherwise) const {
    return json_.value(name, otherwise);
  }
  [[nodiscard]] const Json& at(const char* name) const { return json_.at(name); }

 private:
  const Json& json_;
};

}  // namespace creel::cli::mcp
