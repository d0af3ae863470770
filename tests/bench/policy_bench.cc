#include "tests/bench/policy_bench.h"

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "supervisor/policy/policy.h"
#include "supervisor/policy/reply_guard.h"

namespace creel::bench {
namespace {

constexpr int kSenders = 10'000;
constexpr int kGroups = 1000;
constexpr int kRules = 500;
constexpr int kDecisions = 200'000;

std::string SenderName(int number) { return fmt::format("+1555{:07}", number); }

Config LargeConfig() {
  Config config;
  ChannelConfig& whatsapp = config.policy.channels["whatsapp"];
  for (int i = 0; i < kSenders; ++i) {
    whatsapp.allow_from.push_back(SenderName(i));
  }
  for (int i = 0; i < kGroups; ++i) {
    whatsapp.groups[fmt::format("12036300000{:07}", i)] = {};
  }
  config.policy.levels[kOwner].members = {"whatsapp:+15559990001"};
  config.policy.mention_patterns = {"@clawd\\b", "@mybot\\b", "hey lobster"};
  // As people write them: most are about one tool, some about a group of them or all.
  const std::vector<std::string> tools{"exec",   "write",     "message",  "cron",       "browser",
                                       "remove", "web_fetch", "plugin_a", "memory_get", "nodes"};
  for (int i = 0; i < kRules; ++i) {
    RuleConfig& rule = config.policy.rules[fmt::format("rule-{:03}", i)];
    rule.verdict = static_cast<RuleVerdict>(i % 3);
    rule.tools = {i % 20 == 0   ? std::string("*")
                  : i % 10 == 1 ? std::string("group:fs")
                                : tools[static_cast<size_t>(i) % tools.size()]};
    rule.sessions = {fmt::format("agent:*:whatsapp:group:{}", i)};
    if (i % 4 == 0) {
      rule.senders = {"whatsapp:" + SenderName(i)};
    }
  }
  return config;
}

// Each of the three questions in turn, for senders, groups, tools and sessions at random.
void Decisions(Report& report) {
  const auto compiled = Policy::Compile(LargeConfig());
  if (!compiled.ok()) {
    throw std::runtime_error(std::string(compiled.status().message()));
  }
  const Policy& policy = **compiled;
  std::mt19937 random(1);
  std::vector<SenderId> senders;
  std::vector<std::string> sessions;
  std::vector<std::string> chats;
  for (int i = 0; i < 1000; ++i) {
    senders.push_back(
        ParseSender("whatsapp:" + SenderName(static_cast<int>(random() % (kSenders * 11 / 10)))));
    sessions.push_back(fmt::format("agent:main:whatsapp:group:{}", random() % 1000));
    chats.push_back(fmt::format("12036300000{:07}", random() % (kGroups * 11 / 10)));
  }
  const std::vector<std::string> tools{"exec", "read", "write", "message", "cron", "web_fetch"};
  const std::string text = "so what do you all think of it, @clawd? I would say it can wait";
  const ReadOnlyFacts off;
  uint64_t allowed = 0;
  const double ms = TimeMs([&] {
    for (int i = 0; i < kDecisions; ++i) {
      const auto at = static_cast<size_t>(i) % senders.size();
      const SenderId& sender = senders[at];
      const Standing standing = policy.StandingOf(sender, "");
      if (i % 2 == 0) {
        allowed += policy.Admit({.sender = sender,
                                 .standing = standing,
                                 .chat_id = chats[at],
                                 .is_group = i % 4 == 0,
                                 .text = text})
                               .verdict == AdmitVerdict::kAdmit
                       ? 1
                       : 0;
      } else {
        allowed += policy.DecideTool({.session = sessions[at],
                                      .sender = sender,
                                      .standing = standing,
                                      .tool = tools[static_cast<size_t>(i) % tools.size()],
                                      .place = ToolPlace::kSandbox,
                                      .read_only = off})
                               .verdict == Verdict::kAllow
                       ? 1
                       : 0;
      }
    }
  });
  if (allowed == 0 || allowed == kDecisions) {
    throw std::runtime_error("the decisions are all the same; something is not decided");
  }
  report.Figure("decision_us", ms * 1000 / kDecisions, "<= 5",
                "a decision on average, with 10,000 senders, 1,000 groups and 500 rules");
}

void Replies(Report& report) {
  const std::string_view kOrdinary =
      "Sure, that sounds good. Let me look at the schedule and get back to you tomorrow.\n"
      "The function parse_line(const char* text) returns 0 on success; see "
      "https://example.org/docs/a.html for more (section 4.2).\n"
      "  if (value == nullptr) { return std::string(\"none\"); }\n"
      "Schöne Grüße! The file is /workspace/src/main.cc, and the total is 12.\n";
  std::string text;
  while (text.size() < (1u << 20) - kOrdinary.size()) {
    text += kOrdinary;
  }
  std::vector<std::string> secrets;
  for (int i = 0; i < 20; ++i) {
    secrets.push_back(fmt::format("known-secret-{}-{}", i, i * 7919));
  }
  const ReplyGuard guard(secrets, {"/srv/creel"}, OnSecret::kRedact);
  Samples samples;
  for (int i = 0; i < 30; ++i) {
    samples.Add(TimeMs([&] {
      if (guard.Check(text, {}).verdict != ReplyVerdict::kAllow) {
        throw std::runtime_error("ordinary text was not let through");
      }
    }));
  }
  report.Figure("reply_check_mbps",
                static_cast<double>(text.size()) / 1e6 / (samples.Median() / 1000), ">= 100",
                "MB/s of ordinary text through the reply guard, everything masked, one core");
}

}  // namespace

void PolicyFigures(Report& report) {
  Decisions(report);
  Replies(report);
}

}  // namespace creel::bench
