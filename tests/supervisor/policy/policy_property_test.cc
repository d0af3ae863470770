// Whatever is configured: a deny more, or a level less, never allows more.
#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "supervisor/policy/policy.h"
#include "tests/supervisor/policy/policy_house.h"

namespace creel {
namespace {

const std::vector<std::string> kTools{"exec",       "read",      "write",   "message", "cron",
                                      "web_fetch",  "browser",   "remove",  "nodes",   "process",
                                      "memory_get", "plugin_aa", "unheard", "list"};
const std::vector<std::string> kEntries{"*",
                                        "exec",
                                        "read",
                                        "write",
                                        "message",
                                        "cron",
                                        "group:fs",
                                        "group:runtime",
                                        "group:messaging",
                                        "group:read",
                                        "group:write",
                                        "group:automation",
                                        "plugin_*",
                                        "browser",
                                        "memory_get",
                                        "group:web",
                                        "w*",
                                        "remove"};
const std::vector<std::string> kSessions{"agent:main:main", "agent:main:whatsapp:group:1",
                                         "agent:main:telegram:direct:2", "x"};
const std::vector<std::string> kPatterns{"*", "agent:*", "*:group:*", "agent:main:main", "x"};
const std::vector<std::string> kSenders{"whatsapp:+15550000001", "whatsapp:+15550000002",
                                        "telegram:3", "irc:someone"};
const std::vector<std::string> kLevels{"stranger", "acquaintance", "friend", "family", "owner"};

class World {
 public:
  explicit World(uint32_t seed) : random_(seed) {}

  size_t Below(size_t most) { return std::uniform_int_distribution<size_t>(0, most - 1)(random_); }
  bool Chance(size_t one_in) { return Below(one_in) == 0; }
  const std::string& Pick(const std::vector<std::string>& from) { return from[Below(from.size())]; }
  std::vector<std::string> Some(const std::vector<std::string>& from, size_t most) {
    std::vector<std::string> some;
    for (size_t count = Below(most + 1); count > 0; --count) {
      some.push_back(Pick(from));
    }
    return some;
  }

  RuleConfig Rule(RuleVerdict verdict) {
    return {.levels = Some(kLevels, 2),
            .sessions = Some(kPatterns, 1),
            .senders = Some(kSenders, 1),
            .tools = Some(kEntries, 3),
            .verdict = verdict,
            .reason = {}};
  }

  Config Make() {
    Config config;
    config.policy.levels["acquaintance"].rank = 20;
    config.policy.levels["family"].rank = 80;
    for (auto& [name, level] : config.policy.levels) {
      level.allow = Some(kEntries, 6);
      level.ask = Some(kEntries, 2);
      level.deny = Some(kEntries, 1);
      level.host = Chance(2);
      level.read_only = Chance(8);
      level.keys = Chance(2);
      level.paths = Chance(2);
      level.listings = Chance(2);
      level.commands = Chance(2);
    }
    for (size_t i = Below(8); i > 0; --i) {
      config.policy.rules["r" + std::to_string(i)] = Rule(static_cast<RuleVerdict>(Below(3)));
    }
    if (Chance(4)) {
      config.policy.blocked = {Pick(kSenders)};
    }
    return config;
  }

 private:
  std::mt19937 random_;
};

std::shared_ptr<const Policy> Compiled(const Config& config) {
  auto policy = Policy::Compile(config);
  REQUIRE(policy.ok());
  return *std::move(policy);
}

Verdict Decide(const Policy& policy, const std::string& session, const SenderId& sender,
               Level level, Level kept, const std::string& tool, ToolPlace place,
               const ReadOnlyFacts& read_only) {
  Standing standing = policy.StandingOf(sender, "");
  standing.level = level;
  return policy
      .DecideTool({.session = session,
                   .sender = sender,
                   .standing = standing,
                   .kept = kept,
                   .tool = tool,
                   .place = place,
                   .read_only = read_only})
      .verdict;
}

TEST_SUITE("PolicyProperties") {
  TEST_CASE("lowering a level never allows more") {
    World world(20260127);
    for (int round = 0; round < 400; ++round) {
      CAPTURE(round);
      const auto policy = Compiled(world.Make());
      for (int call = 0; call < 40; ++call) {
        const std::string session = world.Pick(kSessions);
        const SenderId sender = ParseSender(world.Pick(kSenders));
        const std::string tool = world.Pick(kTools);
        const auto place = static_cast<ToolPlace>(world.Below(3));
        const ReadOnlyFacts read_only{.all = world.Chance(8),
                                      .level = static_cast<Level>(world.Below(6)) - 1,
                                      .session = world.Chance(8)};
        Verdict lower = Verdict::kDeny;
        Verdict lower_kept = Verdict::kDeny;
        for (Level level = 0; level <= policy->levels().highest(); ++level) {
          CAPTURE(session);
          CAPTURE(tool);
          CAPTURE(level);
          // By the sender's level, and by that of the sandbox.
          const Verdict here = Decide(*policy, session, sender, level, -1, tool, place, read_only);
          CHECK(here <= lower);
          lower = here;
          const Verdict kept = Decide(*policy, session, {}, policy->levels().highest(), level, tool,
                                      place, read_only);
          CHECK(kept <= lower_kept);
          lower_kept = kept;
        }
      }
    }
  }

  TEST_CASE("adding a deny never allows more") {
    World world(4);
    for (int round = 0; round < 400; ++round) {
      CAPTURE(round);
      Config config = world.Make();
      const auto before = Compiled(config);
      switch (world.Below(4)) {
        case 0:
          config.policy.levels[world.Pick(kLevels)].deny.push_back(world.Pick(kEntries));
          break;
        case 1:
          config.policy.rules["a-new-one"] = world.Rule(RuleVerdict::kDeny);
          break;
        case 2:
          config.policy.blocked.push_back(world.Pick(kSenders));
          break;
        default:
          config.policy.levels[world.Pick(kLevels)].read_only = true;
          break;
      }
      const auto after = Compiled(config);
      const ReadOnlyFacts read_only_before = before->ConfiguredReadOnly();
      const ReadOnlyFacts read_only_after = after->ConfiguredReadOnly();
      for (int call = 0; call < 60; ++call) {
        const std::string session = world.Pick(kSessions);
        const SenderId sender = ParseSender(world.Pick(kSenders));
        const std::string tool = world.Pick(kTools);
        const auto level = static_cast<Level>(world.Below(kLevels.size()));
        const auto place = static_cast<ToolPlace>(world.Below(3));
        CAPTURE(session);
        CAPTURE(tool);
        CAPTURE(level);
        CHECK(Decide(*after, session, sender, level, -1, tool, place, read_only_after) >=
              Decide(*before, session, sender, level, -1, tool, place, read_only_before));
      }
    }
  }

  TEST_CASE("replies and commands: a lower level is never told or given more") {
    World world(7);
    for (int round = 0; round < 400; ++round) {
      const auto policy = Compiled(world.Make());
      const ReadOnlyFacts off;
      const SenderId sender = ParseSender("whatsapp:+15550000009");
      for (Level level = 1; level <= policy->levels().highest(); ++level) {
        CAPTURE(round);
        CAPTURE(level);
        const ReplyRules here = policy->RulesForReply({.readers = level, .read_only = off});
        const ReplyRules below = policy->RulesForReply({.readers = level - 1, .read_only = off});
        CHECK((!here.mask_keys || below.mask_keys));
        CHECK((!here.mask_paths || below.mask_paths));
        CHECK((!here.mask_listings || below.mask_listings));
        const auto admit = [&](Level at) {
          const Standing standing{.level = at, .blocked = false, .why = {}};
          return policy->Admit({.sender = sender, .standing = standing, .is_command = true})
                     .verdict == AdmitVerdict::kAdmit;
        };
        CHECK((admit(level) || !admit(level - 1)));
      }
    }
  }
}

}  // namespace
}  // namespace creel
