#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/config/key_table.h"
#include "supervisor/config/yaml_tree.h"

namespace creel {

// Each reads one kind of value into `out`, or says what is wrong with it and leaves `out` alone.

KeyError ReadText(const YamlNode& node, std::string& out);
KeyError ReadBool(const YamlNode& node, bool& out);
// A whole number from `least` to `most`.
KeyError ReadWhole(const YamlNode& node, uint64_t least, uint64_t most, uint64_t& out);
KeyError ReadNumber(const YamlNode& node, double least, double most, double& out);
// `64MiB`, `2GiB`, or bytes.
KeyError ReadSize(const YamlNode& node, uint64_t least, uint64_t most, uint64_t& out);
// `500ms`, `30s`, `5m`, `24h`, `7d`.
KeyError ReadDuration(const YamlNode& node, std::chrono::milliseconds least,
                      std::chrono::milliseconds most, std::chrono::milliseconds& out);
// Octal, such as `0660`.
KeyError ReadFileMode(const YamlNode& node, uint32_t& out);
// A path from the root without `..`; `or_empty` also takes nothing.
KeyError ReadPath(const YamlNode& node, bool or_empty, std::string& out);
KeyError ReadTextList(const YamlNode& node, std::vector<std::string>& out);
// Names of variables with their values.
KeyError ReadEnvironment(const YamlNode& node, std::map<std::string, std::string>& out);

// The index of the word in `words`; the error lists them and names the nearest.
KeyError ReadChoice(const YamlNode& node, const std::vector<std::string>& words, size_t& out);

}  // namespace creel
