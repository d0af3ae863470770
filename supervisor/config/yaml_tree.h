#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "supervisor/base/status.h"

namespace creel {

// One value of a YAML document, with its place in the file.
struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };

  // Defined where pairs of it are complete: clang asks for these before they are.
  YamlNode();
  ~YamlNode();
  YamlNode(const YamlNode& other);
  YamlNode& operator=(const YamlNode& other);
  YamlNode(YamlNode&& other) noexcept;
  YamlNode& operator=(YamlNode&& other) noexcept;

  Kind kind = Kind::kNull;
  std::string text;     // of a scalar
  bool quoted = false;  // a scalar in quotes or a block: text, never a number
  int line = 1;
  int column = 1;
  std::vector<YamlNode> items;                         // of a list
  std::vector<std::pair<YamlNode, YamlNode>> entries;  // of a map; keys are scalars, all different
};

// Parses one YAML document. Refused, with `file`:line:column (kInvalidArgument): more than 1 MiB or
// 32 levels, NUL bytes, what is not UTF-8, several documents, duplicate keys, keys that are not
// plain words, and anchors, aliases and tags (a configuration has no use for them, and a few bytes
// of them make a document of gigabytes).
absl::StatusOr<YamlNode> ParseYaml(std::string_view text, const std::string& file);

}  // namespace creel
