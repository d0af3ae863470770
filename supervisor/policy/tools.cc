#include "supervisor/policy/tools.h"

#include <algorithm>
#include <functional>
#include <unordered_map>
#include <utility>

namespace creel {
namespace {

using Groups = std::vector<std::pair<std::string, std::vector<std::string>>>;

std::string NormalName(std::string_view name) {
  std::string lower;
  for (const char c : name) {
    if (c != ' ' && c != '\t') {
      lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c == '-' ? '_' : c;
    }
  }
  return lower;
}

// One tool has had, or has, several names.
std::string OneName(std::string name) {
  static const std::unordered_map<std::string, std::string> kNames{
      {"bash", "exec"},   {"shell", "exec"},           {"ls", "list"},
      {"find", "glob"},   {"send_message", "message"}, {"tar_out", "tar"},
      {"untar", "tar_in"}};
  const auto found = kNames.find(name);
  return found == kNames.end() ? std::move(name) : found->second;
}

struct Known {
  std::vector<std::string> groups;
  ToolEffect effect = ToolEffect::kUnknown;
  bool sandboxed = false;
};

const std::unordered_map<std::string, Known>& KnownTools() {
  static const auto& tools = *new std::unordered_map<std::string, Known>([] {
    std::unordered_map<std::string, Known> known;
    for (const auto& [group, names] : ToolGroups()) {
      for (const std::string& name : names) {
        Known& tool = known[name];
        tool.groups.push_back(group);
        if (group == "group:runtime") {
          tool.effect = ToolEffect::kShell;
          tool.sandboxed = true;
        } else if (group == "group:write") {
          tool.effect = ToolEffect::kWrites;
        } else if (group == "group:read") {
          tool.effect = ToolEffect::kReads;
        } else if (group == "group:messaging") {
          tool.effect = ToolEffect::kSends;
        } else if (group == "group:fs") {
          tool.sandboxed = true;
        }
      }
    }
    // Looking at what a command has written is reading; feeding or stopping one is not.
    for (const char* name : {"processes", "attach"}) {
      known[name].effect = ToolEffect::kReads;
    }
    for (const char* name : {"sessions_list", "sessions_history", "session_status", "memory_search",
                             "memory_get", "web_search", "web_fetch", "image"}) {
      known[name].effect = ToolEffect::kReads;
    }
    return known;
  }());
  return tools;
}

}  // namespace

const Groups& ToolGroups() {
  static const Groups& groups = *new Groups{
      {"group:runtime", {"exec", "process", "processes", "attach", "input", "code_execution"}},
      {"group:fs",
       {"read", "list", "stat", "glob", "grep", "watch", "tar", "write", "edit", "apply_patch",
        "mkdir", "move", "copy", "remove", "tar_in"}},
      {"group:read", {"read", "list", "stat", "glob", "grep", "watch", "tar"}},
      {"group:write",
       {"write", "edit", "apply_patch", "mkdir", "move", "copy", "remove", "tar_in"}},
      {"group:messaging", {"message", "sessions_send"}},
      {"group:sessions",
       {"sessions_list", "sessions_history", "sessions_send", "sessions_spawn", "session_status"}},
      {"group:memory", {"memory_search", "memory_get"}},
      {"group:web", {"web_search", "web_fetch"}},
      {"group:ui", {"browser", "canvas"}},
      {"group:automation", {"cron", "gateway"}},
      {"group:nodes", {"nodes"}},
      {"group:media", {"image", "image_generate", "tts"}},
  };
  return groups;
}

ToolFacts DescribeTool(std::string_view name) {
  ToolFacts facts{.name = OneName(NormalName(name)), .groups = {}};
  if (const auto known = KnownTools().find(facts.name); known != KnownTools().end()) {
    facts.groups = known->second.groups;
    facts.effect = known->second.effect;
    facts.sandboxed = known->second.sandboxed;
  }
  return facts;
}

ToolSet::ToolSet(const std::vector<std::string>& entries) {
  for (const std::string& entry : entries) {
    std::string name = NormalName(entry);
    if (name == "*") {
      all_ = true;
    } else if (name.ends_with('*')) {
      name.pop_back();
      beginnings_.push_back(std::move(name));
    } else {
      entries_.push_back(name.starts_with("group:") ? std::move(name) : OneName(std::move(name)));
    }
  }
  std::sort(entries_.begin(), entries_.end());
}

bool ToolSet::Has(const ToolFacts& tool, std::string_view claimed_group) const {
  if (all_) {
    return true;
  }
  const auto has = [&](std::string_view entry) {
    return std::binary_search(entries_.begin(), entries_.end(), entry, std::less<>());
  };
  if (entries_.empty() && beginnings_.empty()) {
    return false;
  }
  return has(tool.name) || std::any_of(tool.groups.begin(), tool.groups.end(), has) ||
         (!claimed_group.empty() && has(claimed_group)) ||
         std::any_of(beginnings_.begin(), beginnings_.end(), [&](const std::string& beginning) {
           return tool.name.starts_with(beginning);
         });
}

}  // namespace creel
