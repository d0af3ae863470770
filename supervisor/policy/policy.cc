#include "supervisor/policy/policy.h"

#include <fmt/format.h>

#include <utility>

#include "supervisor/policy/admission_rules.h"
#include "supervisor/policy/prompt.h"
#include "supervisor/policy/tool_rules.h"

namespace creel {
namespace {

// What replies to a level may hold; a level may what all above it may, too.
struct Sight {
  LevelMask keys = 0;
  LevelMask paths = 0;
  LevelMask listings = 0;
};

Sight SightOf(const PolicyConfig& config, const Levels& levels) {
  Sight sight;
  bool keys = true;
  bool paths = true;
  bool listings = true;
  for (Level level = levels.highest(); level >= Levels::lowest(); --level) {
    const LevelConfig& own = config.levels.at(levels.Name(level));
    const LevelMask bit = LevelMask{1} << level;
    keys = keys && own.keys;
    paths = paths && own.paths;
    listings = listings && own.listings;
    sight.keys |= keys ? bit : 0;
    sight.paths |= paths ? bit : 0;
    sight.listings |= listings ? bit : 0;
  }
  return sight;
}

class CompiledPolicy final : public Policy {
 public:
  CompiledPolicy(const Config& config, Levels levels, AdmissionRules admission)
      : config_(config),
        levels_(std::move(levels)),
        admission_(std::move(admission)),
        tools_(config, levels_),
        sight_(SightOf(config.policy, levels_)) {}

  [[nodiscard]] const Levels& levels() const override { return levels_; }
  [[nodiscard]] const PolicyConfig& config() const override { return config_.policy; }
  [[nodiscard]] Level Unnamed(std::string_view session) const override {
    return tools_.Unnamed(session);
  }
  [[nodiscard]] Standing StandingOf(const SenderId& sender,
                                    std::string_view paired) const override {
    return admission_.StandingOf(sender, paired);
  }
  [[nodiscard]] AdmitDecision Admit(const AdmitFacts& facts) const override {
    return admission_.Admit(facts);
  }
  [[nodiscard]] ToolDecision DecideTool(const ToolQuestion& question) const override {
    return tools_.Decide(question);
  }

  [[nodiscard]] ReplyRules RulesForReply(const ReplyFacts& facts) const override {
    ReplyRules rules;
    rules.mask_keys = !Levels::In(sight_.keys, facts.readers);
    rules.mask_paths = !Levels::In(sight_.paths, facts.readers);
    rules.mask_listings = !Levels::In(sight_.listings, facts.readers);
    // An answer to the one who asked may always be given: how else is anybody told?
    rules.denied = facts.unasked &&
                   RefusedByReadOnly(facts.read_only, facts.readers, levels_.Name(facts.readers),
                                     ToolEffect::kSends, rules.rule, rules.reason);
    return rules;
  }

  [[nodiscard]] ReadOnlyFacts ConfiguredReadOnly() const override {
    ReadOnlyFacts facts{.all = config_.policy.read_only};
    for (Level level = Levels::lowest(); level <= levels_.highest(); ++level) {
      if (config_.policy.levels.at(levels_.Name(level)).read_only) {
        facts.level = level;
      }
    }
    return facts;
  }

  [[nodiscard]] std::string Prompt(Level level, const ReadOnlyFacts& read_only) const override {
    return WritePrompt(config_, levels_, level, read_only, tools_.HostAllowed(level),
                       RulesForReply({.readers = level, .unasked = false, .read_only = read_only}));
  }

 private:
  const Config config_;
  const Levels levels_;
  const AdmissionRules admission_;
  const ToolRules tools_;
  const Sight sight_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Policy>> Policy::Compile(const Config& config) {
  Levels levels(config.policy.levels);
  ASSIGN_OR_RETURN(AdmissionRules admission, AdmissionRules::Compile(config, levels));
  return std::make_shared<const CompiledPolicy>(config, std::move(levels), std::move(admission));
}

}  // namespace creel
