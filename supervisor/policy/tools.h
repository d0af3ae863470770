#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "supervisor/config/policy_config.h"

namespace creel {

// What a tool can bring about, for read-only mode and for where it must run.
enum class ToolEffect {
  kReads,    // looks at files or at what was said
  kShell,    // runs programs
  kWrites,   // changes files
  kSends,    // sends messages
  kUnknown,  // may be anything
};

// What is known of a tool by its name alone.
struct ToolFacts {
  std::string name;                 // in its one spelling: lower case, `bash` is `exec`
  std::vector<std::string> groups;  // `group:fs`, …
  ToolEffect effect = ToolEffect::kUnknown;
  // Runs in the session's sandbox, or on the host only where placement says so. Others (messages,
  // searches) are the gateway's own and run in it.
  bool sandboxed = false;
};

// `name` is a gateway's name of a tool or a verb of Creel's own calls.
ToolFacts DescribeTool(std::string_view name);

// All groups with their tools, for people.
const std::vector<std::pair<std::string, std::vector<std::string>>>& ToolGroups();

// A list of names, groups (`group:fs`), beginnings (`browser_*`) and `*`.
class ToolSet {
 public:
  ToolSet() = default;
  explicit ToolSet(const std::vector<std::string>& entries);
  // Whether the tool is in it; `claimed_group`, if not empty, counts as one of its groups.
  [[nodiscard]] bool Has(const ToolFacts& tool, std::string_view claimed_group) const;
  [[nodiscard]] bool empty() const { return !all_ && entries_.empty() && beginnings_.empty(); }
  // Names and groups; not the beginnings.
  [[nodiscard]] const std::vector<std::string>& entries() const { return entries_; }
  // Whether names and groups are all there is, so that an index of them finds every match.
  [[nodiscard]] bool indexable() const { return !all_ && beginnings_.empty(); }

 private:
  std::vector<std::string> entries_;  // sorted, without beginnings and `*`
  std::vector<std::string> beginnings_;
  bool all_ = false;
};

}  // namespace creel
