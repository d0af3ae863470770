#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/config/config.h"
#include "supervisor/config/yaml_tree.h"

namespace creel {

// What is wrong with a value, as half a sentence; nothing if it was taken over.
using KeyError = std::optional<std::string>;

// One key of the configuration: how it is read, and what people are told of it.
struct KeySpec {
  std::string path;           // with dots, such as `sandbox.limits.memory`
  std::string kind;           // what is accepted, for people
  std::string default_value;  // as it would stand in the file
  std::string text;           // what it does
  std::function<KeyError(const YamlNode&, Config&)> read;
};

// All keys, in the order of the documentation.
const std::vector<KeySpec>& KeyTable();

}  // namespace creel
