#pragma once

#include <string>
#include <string_view>

#include "supervisor/base/status.h"
#include "supervisor/config/yaml_tree.h"

namespace creel {

// Parses a JSON5 document into the tree that YAML is parsed into: a string is a quoted scalar, a
// number or a truth value a plain one, with its text as it stands. Takes what people write by hand:
// comments, commas at the end, single quotes, keys without quotes, hexadecimal numbers, lines that
// go on. Refused, with `file`:line:column (kInvalidArgument): more than 16 MiB, 64 levels or a
// million values, NUL bytes, what is not UTF-8, a key that stands twice, and what is no JSON5.
absl::StatusOr<YamlNode> ParseJson5(std::string_view text, const std::string& file);

}  // namespace creel
