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
  // With dots, such as `sandbox.limits.memory`. A `*` stands for a name that the file chooses.
  std::string path;
  std::string kind;           // what is accepted, for people
  std::string default_value;  // as it would stand in the file
  std::string text;           // what it does
  std::function<KeyError(const YamlNode&, Config&)> read;
  // For a path with `*`, instead of `read`; `names` is what stands for them.
  std::function<KeyError(const YamlNode&, const std::vector<std::string>& names, Config&)>
      read_named{};
  // For a path with `*`: the same path with names, as the file of defaults shows it.
  std::string example{};
};

// The keys of the policy, which KeyTable holds too.
std::vector<KeySpec> PolicyKeys();

// Makes the entry of a named section, such as a group without any key: that it is there says
// something. `form` is its path with `*` for `names`.
KeyError MakeNamedEntry(const std::string& form, const std::vector<std::string>& names,
                        Config& config);

// All keys, in the order of the documentation.
const std::vector<KeySpec>& KeyTable();

}  // namespace creel
