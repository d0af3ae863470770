#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "supervisor/config/config.h"
#include "supervisor/policy/levels.h"
#include "supervisor/policy/policy.h"
#include "supervisor/policy/session_pattern.h"
#include "supervisor/policy/tools.h"

namespace creel {

// Which tools may run, and where. Part of Policy.
class ToolRules {
 public:
  ToolRules(const Config& config, const Levels& levels);
  [[nodiscard]] ToolDecision Decide(const ToolQuestion& question) const;
  [[nodiscard]] Level Unnamed(std::string_view session) const;
  // What a level may, in words for a prompt.
  [[nodiscard]] bool HostAllowed(Level level) const { return Levels::In(host_, level); }

 private:
  struct OfLevel {
    ToolSet allow;
    ToolSet ask;
    ToolSet deny;
  };
  struct Rule {
    std::string name;
    RuleVerdict verdict = RuleVerdict::kDeny;
    LevelMask levels = 0;
    std::vector<SessionPattern> sessions;
    std::unordered_set<std::string> senders;
    ToolSet tools;
    std::string reason;
  };
  // What the rules say to one call.
  struct Said {
    const Rule* deny = nullptr;
    const Rule* ask = nullptr;
    const Rule* allow = nullptr;
    LevelMask ask_levels = 0;
    LevelMask allow_levels = 0;
  };

  [[nodiscard]] bool Placed(const ToolQuestion& question, const ToolFacts& tool,
                            ToolDecision& decision) const;
  void ByLists(const ToolQuestion& question, const ToolFacts& tool, ToolDecision& decision) const;
  [[nodiscard]] Said AskRules(const ToolQuestion& question, const ToolFacts& tool,
                              Level level) const;
  void AskRule(const Rule& rule, const ToolQuestion& question, const ToolFacts& tool,
               const std::string& sender, Level level, Said& said) const;

  Levels levels_;
  SandboxConfig sandbox_;
  Level unnamed_ = 0;
  LevelMask host_ = 0;
  std::vector<OfLevel> of_level_;
  std::vector<Rule> rules_;
  // Rules that name the tool or group; those that cannot be found so are asked for every call.
  std::unordered_map<std::string, std::vector<uint32_t>> by_tool_;
  std::vector<uint32_t> for_many_;
};

// Whether read-only mode refuses the effect; the decision is filled in if so. Unlike reading, what
// a tool does that is not known is refused.
bool RefusedByReadOnly(const ReadOnlyFacts& read_only, Level level, const std::string& level_name,
                       ToolEffect effect, std::string& rule, std::string& reason);

}  // namespace creel
