#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "supervisor/config/key_table.h"
#include "supervisor/config/load_config.h"

namespace creel {
namespace {

std::vector<std::string> SectionsOf(const std::string& path) {
  std::vector<std::string> sections;
  size_t start = 0;
  for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', start)) {
    sections.push_back(path.substr(start, dot - start));
    start = dot + 1;
  }
  return sections;
}

std::string LastWord(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// `text` in comment lines of at most 90 columns.
std::string Wrapped(std::string_view text, const std::string& prefix) {
  std::string out;
  std::string line = prefix;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
    if (line.size() + 1 + word.size() > 90 && line != prefix) {
      out += line + "\n";
      line = prefix;
    }
    line += fmt::format(" {}", word);
  }
  return out + line + "\n";
}

std::string Shown(const std::string& value) { return value.empty() ? "\"\"" : value; }

}  // namespace

std::string DefaultConfigYaml() {
  std::string out =
      "# The configuration of creeld, with every key at its default. Take away the `#` before a\n"
      "# key, and before the sections above it, to change it.\n";
  std::vector<std::string> open;
  for (const KeySpec& spec : KeyTable()) {
    const std::vector<std::string> sections =
        SectionsOf(spec.example.empty() ? spec.path : spec.example);
    for (size_t level = 0; level < sections.size(); ++level) {
      if (level >= open.size() || open[level] != sections[level]) {
        out += fmt::format("{}#{}{}:\n", level == 0 ? "\n" : "", std::string(level * 2, ' '),
                           sections[level]);
        open.resize(level);
        open.push_back(sections[level]);
      }
    }
    const std::string indent(sections.size() * 2, ' ');
    if (sections.empty()) {
      out += "\n";
      open.clear();
    }
    out += Wrapped(spec.text, fmt::format("#{}#", indent));
    out += fmt::format("#{}{}: {}\n", indent, LastWord(spec.path), Shown(spec.default_value));
  }
  return out;
}

std::string ConfigReference() {
  std::string out =
      "# Configuration\n"
      "\n"
      "`creeld --config FILE` reads one YAML file; without it `/etc/creel/creel.yaml` if that is "
      "there,\n"
      "else the defaults. Every key has a default that is the safe one. An unknown or mistyped key "
      "is an\n"
      "error that names file, line and the nearest known key; `creeld --check-config` only checks, "
      "and\n"
      "`creeld --print-default-config` prints a file to start from.\n"
      "\n"
      "Sizes are bytes or end in `KiB`, `MiB`, `GiB`, `TiB`. Times end in `ms`, `s`, `m`, `h`, "
      "`d`.\n"
      "\n"
      "In a section such as `levels.*` the `*` stands for a name of your choice.\n"
      "\n"
      "On `SIGHUP` (`systemctl reload`) and by `creel policy reload` the file is read again. What "
      "decides who\n"
      "may do what (`levels`, `channels`, `rules`, `pairing`, `approvals`, `replies`, `trust`, "
      "`read_only`,\n"
      "`mention_patterns`), `egress.*`, `sessions.*` and `log.level` then count at once; a change "
      "of "
      "any other\n"
      "key is named and waits for a restart. Memory, processors and processes of open sandboxes "
      "follow "
      "their\n"
      "level's limits at once; the rest of them stays as it was made.\n"
      "\n"
      "This page is written by `creeld --print-config-reference`.\n";
  std::string section = "-";
  for (const KeySpec& spec : KeyTable()) {
    const size_t dot = spec.path.rfind('.');
    const std::string here = dot == std::string::npos ? "" : spec.path.substr(0, dot);
    if (here != section) {
      section = here;
      out += fmt::format("\n## {}\n\n| key | accepts | default | |\n| --- | --- | --- | --- |\n",
                         here.empty() ? "Other keys" : fmt::format("`{}`", here));
    }
    out += fmt::format("| `{}` | {} | {} | {} |\n", LastWord(spec.path), spec.kind,
                       spec.default_value.empty() ? "" : fmt::format("`{}`", spec.default_value),
                       spec.text);
  }
  return out;
}

}  // namespace creel
