#include "supervisor/cli/mcp/arguments.h"

#include <fmt/format.h>

#include "supervisor/base/escape.h"

namespace creel::cli::mcp {
namespace {

constexpr size_t kShown = 80;

bool HasType(const std::string& type, const Json& value) {
  if (type == "string") {
    return value.is_string();
  }
  if (type == "integer") {
    return value.is_number_integer();
  }
  if (type == "number") {
    return value.is_number();
  }
  if (type == "boolean") {
    return value.is_boolean();
  }
  if (type == "array") {
    return value.is_array();
  }
  return type == "object" && value.is_object();
}

std::optional<std::string> FindMisfitInObject(const Json& schema, const Json& value,
                                              std::string_view name) {
  if (const auto required = schema.find("required"); required != schema.end()) {
    for (const Json& key : *required) {
      if (!value.contains(key.get_ref<const std::string&>())) {
        return fmt::format("`{}` is missing in {}", key.get_ref<const std::string&>(), name);
      }
    }
  }
  static const Json kNone = Json::object();
  const auto properties = schema.find("properties");
  const Json& known = properties == schema.end() ? kNone : *properties;
  const auto others = schema.find("additionalProperties");
  for (const auto& [key, part] : value.items()) {
    const std::string shown = Printable(key, kShown);
    const auto property = known.find(key);
    if (property != known.end()) {
      if (auto misfit = FindMisfit(*property, part, shown)) {
        return misfit;
      }
    } else if (others != schema.end() && others->is_object()) {
      if (auto misfit = FindMisfit(*others, part, shown)) {
        return misfit;
      }
    } else if (others != schema.end() && *others == false) {
      return fmt::format("`{}` is not known in {}", shown, name);
    }
  }
  return std::nullopt;
}

std::optional<std::string> FindMisfitInNumber(const Json& schema, const Json& value,
                                              std::string_view name) {
  const double number = value.get<double>();
  if (schema.contains("minimum") && number < schema["minimum"].get<double>()) {
    return fmt::format("`{}` must be at least {}", name, schema["minimum"].dump());
  }
  if (schema.contains("maximum") && number > schema["maximum"].get<double>()) {
    return fmt::format("`{}` must be at most {}", name, schema["maximum"].dump());
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> FindMisfit(const Json& schema, const Json& value,
                                      std::string_view name) {
  if (const auto type = schema.find("type"); type != schema.end() && !HasType(*type, value)) {
    return fmt::format("`{}` must be of the type {}", name, type->get_ref<const std::string&>());
  }
  if (const auto choices = schema.find("enum"); choices != schema.end()) {
    for (const Json& choice : *choices) {
      if (choice == value) {
        return std::nullopt;
      }
    }
    return fmt::format("`{}` must be one of {}", name, choices->dump());
  }
  if (value.is_object()) {
    return FindMisfitInObject(schema, value, name);
  }
  if (value.is_number()) {
    return FindMisfitInNumber(schema, value, name);
  }
  if (value.is_string() && schema.contains("minLength") &&
      value.get_ref<const std::string&>().size() < schema["minLength"].get<size_t>()) {
    return fmt::format("`{}` must not be empty", name);
  }
  if (value.is_array()) {
    if (schema.contains("maxItems") && value.size() > schema["maxItems"].get<size_t>()) {
      return fmt::format("`{}` has more than {} parts", name, schema["maxItems"].dump());
    }
    if (const auto items = schema.find("items"); items != schema.end()) {
      for (const Json& item : value) {
        if (auto misfit = FindMisfit(*items, item, name)) {
          return misfit;
        }
      }
    }
  }
  return std::nullopt;
}

}  // namespace creel::cli::mcp
