#include "supervisor/config/value_readers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "supervisor/base/escape.h"
#include "supervisor/config/text.h"

namespace creel {
namespace {

struct Unit {
  std::string_view name;
  uint64_t factor;
};

constexpr std::array<Unit, 5> kSizeUnits{
    {{"", 1}, {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}, {"TiB", 1ull << 40}}};
constexpr std::array<Unit, 5> kTimeUnits{
    {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};
constexpr size_t kMaxEnvironmentBytes = 64u << 10;

std::string Shown(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a section";
    case YamlNode::Kind::kScalar:
      break;
  }
  return fmt::format("'{}'", Printable(node.text, 80));
}

// A number that stands in quotes is text.
bool IsPlain(const YamlNode& node) { return node.kind == YamlNode::Kind::kScalar && !node.quoted; }

// `text` as digits followed by one of `units`. False: it is not. An overflow is the largest number.
template <size_t kCount>
bool ParseWithUnit(std::string_view text, const std::array<Unit, kCount>& units, uint64_t& out) {
  uint64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error == std::errc::invalid_argument) {
    return false;
  }
  const std::string_view name(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const Unit& unit : units) {
    if (unit.name == name) {
      if (error == std::errc::result_out_of_range ||
          __builtin_mul_overflow(count, unit.factor, &out)) {
        out = UINT64_MAX;
      }
      return true;
    }
  }
  return false;
}

template <size_t kCount>
std::string ShowWithUnit(uint64_t value, const std::array<Unit, kCount>& units) {
  for (auto unit = units.rbegin(); unit != units.rend(); ++unit) {
    if (value != 0 && value % unit->factor == 0) {
      return fmt::format("{}{}", value / unit->factor, unit->name);
    }
  }
  return fmt::format("{}{}", value, units[0].name);
}

}  // namespace

KeyError ReadText(const YamlNode& node, std::string& out) {
  if (node.kind == YamlNode::Kind::kNull) {
    out.clear();
    return {};
  }
  if (node.kind != YamlNode::Kind::kScalar) {
    return fmt::format("wants text, not {}", Shown(node));
  }
  if (std::any_of(node.text.begin(), node.text.end(),
                  [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
    return fmt::format("holds control characters: {}", Shown(node));
  }
  out = node.text;
  return {};
}

KeyError ReadBool(const YamlNode& node, bool& out) {
  if (!IsPlain(node) || (node.text != "true" && node.text != "false")) {
    return fmt::format("wants true or false, not {}", Shown(node));
  }
  out = node.text == "true";
  return {};
}

KeyError ReadWhole(const YamlNode& node, uint64_t least, uint64_t most, uint64_t& out) {
  uint64_t value = 0;
  const char* const end = node.text.data() + node.text.size();
  const auto [stop, error] = std::from_chars(node.text.data(), end, value);
  if (!IsPlain(node) || stop != end || error == std::errc::invalid_argument) {
    return fmt::format("wants a whole number from {} to {}, not {}", least, most, Shown(node));
  }
  if (error == std::errc::result_out_of_range || value < least || value > most) {
    return fmt::format("must be from {} to {}, not {}", least, most, Printable(node.text, 80));
  }
  out = value;
  return {};
}

KeyError ReadNumber(const YamlNode& node, double least, double most, double& out) {
  double value = 0;
  const char* const end = node.text.data() + node.text.size();
  const auto [stop, error] =
      std::from_chars(node.text.data(), end, value, std::chars_format::fixed);
  if (!IsPlain(node) || stop != end || error == std::errc::invalid_argument ||
      !std::isfinite(value)) {
    return fmt::format("wants a number from {} to {}, not {}", least, most, Shown(node));
  }
  if (error == std::errc::result_out_of_range || value < least || value > most) {
    return fmt::format("must be from {} to {}, not {}", least, most, Printable(node.text, 80));
  }
  out = value;
  return {};
}

KeyError ReadSize(const YamlNode& node, uint64_t least, uint64_t most, uint64_t& out) {
  uint64_t value = 0;
  if (!IsPlain(node) || !ParseWithUnit(node.text, kSizeUnits, value)) {
    return fmt::format("wants a size such as 512MiB, 2GiB or a number of bytes, not {}",
                       Shown(node));
  }
  if (value < least || value > most) {
    return fmt::format("must be from {} to {}, not {}", ShowWithUnit(least, kSizeUnits),
                       ShowWithUnit(most, kSizeUnits), Printable(node.text, 80));
  }
  out = value;
  return {};
}

KeyError ReadDuration(const YamlNode& node, std::chrono::milliseconds least,
                      std::chrono::milliseconds most, std::chrono::milliseconds& out) {
  uint64_t value = 0;
  if (!IsPlain(node) || !ParseWithUnit(node.text, kTimeUnits, value)) {
    return fmt::format("wants a time with its unit, such as 30s, 5m, 24h or 7d, not {}",
                       Shown(node));
  }
  if (value < static_cast<uint64_t>(least.count()) || value > static_cast<uint64_t>(most.count())) {
    return fmt::format("must be from {} to {}, not {}",
                       ShowWithUnit(static_cast<uint64_t>(least.count()), kTimeUnits),
                       ShowWithUnit(static_cast<uint64_t>(most.count()), kTimeUnits),
                       Printable(node.text, 80));
  }
  out = std::chrono::milliseconds(value);
  return {};
}

KeyError ReadFileMode(const YamlNode& node, uint32_t& out) {
  uint32_t value = 0;
  const char* const end = node.text.data() + node.text.size();
  const auto [stop, error] = std::from_chars(node.text.data(), end, value, 8);
  if (node.kind != YamlNode::Kind::kScalar || stop != end || error != std::errc() || value > 0777) {
    return fmt::format("wants an octal file mode such as 0660, not {}", Shown(node));
  }
  out = value;
  return {};
}

KeyError ReadPath(const YamlNode& node, bool or_empty, std::string& out) {
  std::string path;
  if (KeyError error = ReadText(node, path)) {
    return error;
  }
  if (path.empty() && or_empty) {
    out.clear();
    return {};
  }
  if (path.empty() || path[0] != '/') {
    return fmt::format("wants a path from the root (/…), not {}", Shown(node));
  }
  // One spelling for each path, so that later comparisons mean something.
  std::string clean;
  std::string_view rest = path;
  while (!rest.empty()) {
    const size_t slash = std::min(rest.find('/'), rest.size());
    const std::string_view part = rest.substr(0, slash);
    rest.remove_prefix(std::min(slash + 1, rest.size()));
    if (part == "..") {
      return fmt::format("must not hold '..': {}", Shown(node));
    }
    if (!part.empty() && part != ".") {
      clean += fmt::format("/{}", part);
    }
  }
  if (clean.empty()) {
    clean = "/";
  }
  if (clean.size() > 4000) {
    return "is longer than 4000 bytes";
  }
  out = clean;
  return {};
}

KeyError ReadTextList(const YamlNode& node, std::vector<std::string>& out) {
  std::vector<std::string> list;
  if (node.kind == YamlNode::Kind::kNull) {
    out.clear();
    return {};
  }
  if (node.kind != YamlNode::Kind::kList) {
    return fmt::format("wants a list, such as [one, two], not {}", Shown(node));
  }
  for (const YamlNode& item : node.items) {
    std::string text;
    if (KeyError error = ReadText(item, text)) {
      return fmt::format("has an item that {}", *error);
    }
    if (text.empty()) {
      return "has an empty item";
    }
    list.push_back(std::move(text));
  }
  if (list.size() > 256) {
    return "has more than 256 items";
  }
  out = std::move(list);
  return {};
}

KeyError ReadEnvironment(const YamlNode& node, std::map<std::string, std::string>& out) {
  std::map<std::string, std::string> env;
  if (node.kind == YamlNode::Kind::kNull) {
    out.clear();
    return {};
  }
  if (node.kind != YamlNode::Kind::kMap) {
    return fmt::format("wants names with values, such as {{TZ: UTC}}, not {}", Shown(node));
  }
  size_t bytes = 0;
  for (const auto& [key, value] : node.entries) {
    const std::string& name = key.text;
    const bool good = std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return c < 0x80 && (std::isalnum(c) != 0 || c == '_');
    });
    if (name.empty() || !good || std::isdigit(static_cast<unsigned char>(name[0])) != 0) {
      return fmt::format("has a variable that cannot have the name '{}'", Printable(name, 80));
    }
    if (value.kind != YamlNode::Kind::kScalar && value.kind != YamlNode::Kind::kNull) {
      return fmt::format("wants text for '{}', not {}", Printable(name, 80), Shown(value));
    }
    const std::string text = value.kind == YamlNode::Kind::kNull ? "" : value.text;
    bytes += name.size() + text.size() + 2;
    env[name] = text;
  }
  if (bytes > kMaxEnvironmentBytes) {
    return "is larger than 64 KiB";
  }
  out = std::move(env);
  return {};
}

KeyError ReadChoice(const YamlNode& node, const std::vector<std::string>& words, size_t& out) {
  const auto found = std::find(words.begin(), words.end(), node.text);
  if (node.kind != YamlNode::Kind::kScalar || found == words.end()) {
    const std::string near = Nearest(node.text, words);
    return fmt::format("wants one of {}, not {}{}", fmt::join(words, ", "), Shown(node),
                       near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
  }
  out = static_cast<size_t>(found - words.begin());
  return {};
}

}  // namespace creel
