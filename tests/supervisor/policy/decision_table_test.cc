// Decisions over the four questions, row by row, against one configuration.
#include <doctest/doctest.h>

#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/policy/reply_guard.h"
#include "tests/supervisor/policy/policy_house.h"

namespace creel {
namespace {

constexpr char kYaml[] = R"yaml(
sandbox: {mode: non-main}
levels:
  owner: {members: ["whatsapp:+15550000001", "telegram:1"]}
  family:
    rank: 70
    members: ["whatsapp:+15550000002"]
    allow: [group:runtime, group:fs, group:web, group:memory, message, browser, session_status]
    ask: [cron]
    commands: true
    paths: true
  friend:
    members: ["whatsapp:+15550000003", "telegram:3", "discord:3"]
    allow: [group:runtime, group:fs, web_search, session_status, browser, plugin_*]
    ask: [group:messaging]
    deny: [web_fetch]
  stranger: {allow: [read, list]}
trust: {blocked: ["whatsapp:+15550000666", "whatsapp:7777777777@lid"]}
mention_patterns: ["@clawd\\b", "hey lobster"]
channels:
  whatsapp:
    allow_from: ["+1 555 000 0004"]
    group_allow_from: ["+15550000010"]
    groups:
      "111": {}
      "222": {require_mention: false}
      "333": {allow_from: ["+15550000011"]}
      "444": {allow_from: ["*"]}
    mention_patterns: ["^computer,"]
  telegram: {dm_policy: allowlist, group_policy: open}
  discord: {dm_policy: open, allow_from: ["*"], group_policy: open, groups: {"9": {}}}
  slack: {dm_policy: open}
  signal: {dm_policy: disabled, group_policy: disabled, allow_from: ["+15550000004"]}
rules:
  no-removing: {tools: [remove], levels: [friend], reason: "friends do not remove things"}
  ask-in-group: {tools: [write], sessions: ["*:group:*"], verdict: ask}
  night-shift: {tools: [group:memory], senders: ["whatsapp:+15550000003"], verdict: allow}
  no-shell-here: {tools: [group:runtime], sessions: ["agent:main:whatsapp:group:999"]}
)yaml";

const std::shared_ptr<const Policy>& House() {
  static const auto& policy = *new std::shared_ptr<const Policy>(MustCompile(kYaml));
  return policy;
}

constexpr char kOwnerId[] = "whatsapp:+15550000001";
constexpr char kFamilyId[] = "whatsapp:+15550000002";
constexpr char kFriendId[] = "whatsapp:+15550000003";
constexpr char kListedId[] = "whatsapp:+15550000004";
constexpr char kStrangerId[] = "whatsapp:+15559999999";
constexpr char kBlockedId[] = "whatsapp:+15550000666";

// Rows that each table has at least.
constexpr size_t kAdmissionRows = 94;
constexpr size_t kSandboxRows = 98;
constexpr size_t kHostRows = 35;
constexpr size_t kPlacesRows = 7;
constexpr size_t kReadOnlyRows = 49;
constexpr size_t kRepliesRows = 26;
static_assert(kAdmissionRows + kSandboxRows + kHostRows + kPlacesRows + kReadOnlyRows +
                  kRepliesRows >=
              300);

struct AdmitRow {
  const char* sender;
  const char* chat;  // empty: a direct message
  const char* text;
  const char* expected;  // verdict and rule
  const char* paired = "";
  bool mention = false;
  bool command = false;
};

TEST_SUITE("DecisionTable") {
  TEST_CASE("admission") {
    const AdmitRow kRows[] = {
        // Direct messages, pairing.
        {kOwnerId, "", "hi", "admit admission.known"},
        {kFamilyId, "", "hi", "admit admission.known"},
        {kFriendId, "", "hi", "admit admission.known"},
        {kListedId, "", "hi", "admit admission.known"},
        {"whatsapp:15550000004@s.whatsapp.net", "", "hi", "admit admission.known"},
        {"whatsapp:+1 (555) 000-0004", "", "hi", "admit admission.known"},
        {"+15550000004", "", "hi", "admit admission.known"},
        {kStrangerId, "", "hi", "pair admission.pairing"},
        {kStrangerId, "", "@clawd hi", "pair admission.pairing"},
        {kStrangerId, "", "hi", "admit admission.known", "friend"},
        {kStrangerId, "", "hi", "admit admission.known", "family"},
        {kStrangerId, "", "hi", "admit admission.known", "owner"},
        {kStrangerId, "", "hi", "pair admission.pairing", "stranger"},
        {kStrangerId, "", "hi", "pair admission.pairing", "no-such-level"},
        {"whatsapp:+1555000000", "", "hi", "pair admission.pairing"},
        {"whatsapp:+155500000041", "", "hi", "pair admission.pairing"},
        {"sms:+15550000004", "", "hi", "pair admission.pairing"},
        {"sms:+15550000001", "", "hi", "pair admission.pairing"},
        {"telegram:+15550000001", "", "hi", "deny admission.allowlist"},
        {kBlockedId, "", "hi", "deny trust.blocked"},
        {kBlockedId, "", "hi", "deny trust.blocked", "friend"},
        {"whatsapp:15550000666@hosted", "", "hi", "deny trust.blocked"},
        {"whatsapp:15550000666:4@s.whatsapp.net", "", "hi", "deny trust.blocked"},
        {"whatsapp:tel:+1-555-000-0666", "", "hi", "deny trust.blocked"},
        {"tel:+15550000666", "", "hi", "deny trust.blocked"},
        {"whatsapp:7777777777@lid", "", "hi", "deny trust.blocked"},
        {"whatsapp:7777777777:3@lid", "", "hi", "deny trust.blocked"},
        {"whatsapp:7777777777:3@hosted.lid", "", "hi", "deny trust.blocked"},
        {"whatsapp:7777777778@lid", "", "hi", "pair admission.pairing"},
        {kBlockedId, "111", "@clawd", "deny trust.blocked"},
        {"", "", "hi", "deny admission.unknown-sender"},
        {"", "111", "@clawd hi", "deny admission.unknown-sender"},
        // Allowlist.
        {"telegram:1", "", "hi", "admit admission.known"},
        {"tg:1", "", "hi", "admit admission.known"},
        {"telegram:3", "", "hi", "admit admission.known"},
        {"telegram:4", "", "hi", "deny admission.allowlist"},
        {"telegram:4", "", "hi", "admit admission.known", "friend"},
        {"telegram:15550000004", "", "hi", "deny admission.allowlist"},
        // Open, with and without the star.
        {"discord:3", "", "hi", "admit admission.known"},
        {"discord:77", "", "hi", "admit admission.open"},
        {"slack:U77", "", "hi", "deny admission.open-without-star"},
        {"slack:U77", "", "hi", "admit admission.known", "friend"},
        // Disabled.
        {"signal:+15550000004", "", "hi", "deny admission.dm-disabled"},
        {"signal:+15559999999", "", "hi", "deny admission.dm-disabled"},
        {"signal:+15550000004", "1", "@clawd", "ignore admission.groups-disabled"},
        // A channel that the configuration does not know.
        {"irc:somebody", "", "hi", "pair admission.pairing"},
        {"irc:somebody", "#x", "@clawd", "ignore admission.group-unlisted"},
        {"irc:somebody", "", "hi", "admit admission.known", "friend"},
        // Groups: the list of groups.
        {kOwnerId, "555", "@clawd hi", "ignore admission.group-unlisted"},
        {kFriendId, "555", "@clawd hi", "ignore admission.group-unlisted"},
        {kFriendId, "", "@clawd hi", "admit admission.known"},
        {kOwnerId, "111", "@clawd hi", "admit admission.group"},
        {kOwnerId, "111@g.us", "@clawd hi", "admit admission.group"},
        {kFriendId, "111", "@clawd hi", "admit admission.group"},
        {kListedId, "111", "@clawd hi", "admit admission.group"},
        // Groups: mentions.
        {kOwnerId, "111", "hi", "ignore admission.unmentioned"},
        {kFriendId, "111", "hi", "ignore admission.unmentioned"},
        {kFriendId, "111", "hi", "admit admission.group", "", true},
        {kFriendId, "111", "@CLAWD hi", "admit admission.group"},
        {kFriendId, "111", "so, Hey Lobster, hi", "admit admission.group"},
        {kFriendId, "111", "@clawdia hi", "ignore admission.unmentioned"},
        {kFriendId, "111", "Computer, lights", "admit admission.group"},
        {kFriendId, "111", "my computer, you know", "ignore admission.unmentioned"},
        {kFriendId, "111", "", "ignore admission.unmentioned"},
        {kFriendId, "222", "hi", "admit admission.group"},
        {kOwnerId, "222", "", "admit admission.group"},
        {"telegram:3", "5", "computer, hi", "ignore admission.unmentioned"},
        {"telegram:3", "5", "@clawd hi", "admit admission.group"},
        // Groups: who may speak.
        {kStrangerId, "111", "@clawd hi", "ignore admission.group-sender"},
        {kStrangerId, "111", "hi", "ignore admission.group-sender"},
        {kStrangerId, "111", "hi", "ignore admission.group-sender", "", true},
        {kStrangerId, "111", "@clawd hi", "admit admission.group", "friend"},
        {"whatsapp:+15550000010", "111", "@clawd hi", "admit admission.group"},
        {"whatsapp:+15550000010", "222", "hi", "admit admission.group"},
        {"whatsapp:+15550000010", "", "hi", "pair admission.pairing"},
        {"whatsapp:+15550000010", "333", "@clawd hi", "ignore admission.group-sender"},
        {"whatsapp:+15550000011", "333", "@clawd hi", "admit admission.group"},
        {"whatsapp:+15550000011", "111", "@clawd hi", "ignore admission.group-sender"},
        {kFriendId, "333", "@clawd hi", "admit admission.group"},
        {kStrangerId, "444", "@clawd hi", "admit admission.group"},
        {kStrangerId, "444", "hi", "ignore admission.unmentioned"},
        {"telegram:4", "5", "@clawd hi", "admit admission.group"},
        {"telegram:4", "5", "hi", "ignore admission.unmentioned"},
        {"discord:77", "9", "@clawd hi", "admit admission.group"},
        {"discord:77", "8", "@clawd hi", "ignore admission.group-unlisted"},
        // Commands.
        {kOwnerId, "", "/status", "admit admission.known", "", false, true},
        {kFamilyId, "", "/status", "admit admission.known", "", false, true},
        {kFriendId, "", "/status", "deny admission.command", "", false, true},
        {kListedId, "", "/status", "deny admission.command", "", false, true},
        {kStrangerId, "", "/status", "pair admission.pairing", "", false, true},
        {"discord:77", "", "/status", "deny admission.command", "", false, true},
        {kOwnerId, "111", "/status", "ignore admission.unmentioned", "", false, true},
        {kOwnerId, "111", "@clawd /status", "admit admission.group", "", false, true},
        {kFriendId, "111", "@clawd /status", "deny admission.command", "", false, true},
    };
    static_assert(std::size(kRows) >= kAdmissionRows);
    for (const AdmitRow& row : kRows) {
      CAPTURE(row.sender);
      CAPTURE(row.chat);
      CAPTURE(row.text);
      const SenderId sender = ParseSender(row.sender);
      const Standing standing = House()->StandingOf(sender, row.paired);
      const AdmitDecision decision = House()->Admit({.sender = sender,
                                                     .standing = standing,
                                                     .chat_id = row.chat,
                                                     .is_group = *row.chat != '\0',
                                                     .native_mention = row.mention,
                                                     .text = row.text,
                                                     .is_command = row.command});
      CHECK(Word(decision.verdict) + " " + decision.rule == row.expected);
      CHECK(!decision.reason.empty());
    }
  }

  struct ToolRow {
    const char* sender;
    const char* session;
    const char* tool;
    const char* expected;
    const char* kept = "";
  };

  std::string Decide(const ToolRow& row, ToolPlace place, const ReadOnlyFacts& read_only,
                     const char* group = "") {
    const SenderId sender = ParseSender(row.sender);
    const Standing standing = House()->StandingOf(sender, "");
    const ToolDecision decision =
        House()->DecideTool({.session = row.session,
                             .sender = sender,
                             .standing = standing,
                             .kept = *row.kept == '\0' ? -1 : House()->levels().Of(row.kept),
                             .tool = row.tool,
                             .claimed_group = group,
                             .place = place,
                             .read_only = read_only});
    CHECK(!decision.reason.empty());
    return Word(decision.verdict) + " " + decision.rule;
  }

  constexpr char kDm[] = "agent:main:whatsapp:direct:x";
  constexpr char kGroup[] = "agent:main:whatsapp:group:111";
  constexpr char kMain[] = "agent:main:main";

  TEST_CASE("tools in the sandbox") {
    const ToolRow kRows[] = {
        {kOwnerId, kDm, "exec", "allow levels.owner.allow"},
        {kOwnerId, kDm, "bash", "allow levels.owner.allow"},
        {kOwnerId, kDm, "read", "allow levels.owner.allow"},
        {kOwnerId, kDm, "remove", "allow levels.owner.allow"},
        {kOwnerId, kDm, "message", "allow levels.owner.allow"},
        {kOwnerId, kDm, "cron", "allow levels.owner.allow"},
        {kOwnerId, kDm, "browser", "allow levels.owner.allow"},
        {kOwnerId, kDm, "never_heard_of", "allow levels.owner.allow"},
        {kOwnerId, kDm, "write", "allow levels.owner.allow"},
        {kOwnerId, kGroup, "write", "ask rules.ask-in-group"},
        {kOwnerId, kGroup, "edit", "allow levels.owner.allow"},
        {kOwnerId, kDm, "group:fs", "deny tools.name"},
        {kFamilyId, kDm, "group:fs", "deny tools.name"},
        {kFriendId, kDm, "group:fs", "deny tools.name"},
        {kFriendId, kDm, "Group:Runtime", "deny tools.name"},
        {kFamilyId, kDm, "exec", "allow levels.family.allow"},
        {kFamilyId, kDm, "web_fetch", "allow levels.family.allow"},
        {kFamilyId, kDm, "web_search", "allow levels.family.allow"},
        {kFamilyId, kDm, "memory_get", "allow levels.family.allow"},
        {kFamilyId, kDm, "message", "allow levels.family.allow"},
        {kFamilyId, kDm, "cron", "ask levels.family.ask"},
        {kFamilyId, kDm, "gateway", "deny levels.family"},
        {kFamilyId, kDm, "nodes", "deny levels.family"},
        {kFamilyId, kDm, "remove", "allow levels.family.allow"},
        {kFamilyId, kDm, "sessions_send", "deny levels.family"},
        {kFamilyId, kGroup, "write", "ask rules.ask-in-group"},
        {kFriendId, kDm, "exec", "allow levels.friend.allow"},
        {kFriendId, kDm, "process", "allow levels.friend.allow"},
        {kFriendId, kDm, "processes", "allow levels.friend.allow"},
        {kFriendId, kDm, "attach", "allow levels.friend.allow"},
        {kFriendId, kDm, "input", "allow levels.friend.allow"},
        {kFriendId, kDm, "read", "allow levels.friend.allow"},
        {kFriendId, kDm, "ls", "allow levels.friend.allow"},
        {kFriendId, kDm, "find", "allow levels.friend.allow"},
        {kFriendId, kDm, "write", "allow levels.friend.allow"},
        {kFriendId, kDm, "edit", "allow levels.friend.allow"},
        {kFriendId, kDm, "apply_patch", "allow levels.friend.allow"},
        {kFriendId, kDm, "tar-in", "allow levels.friend.allow"},
        {kFriendId, kDm, "tar-out", "allow levels.friend.allow"},
        {kFriendId, kDm, "READ", "allow levels.friend.allow"},
        {kFriendId, kDm, "web_search", "allow levels.friend.allow"},
        {kFriendId, kDm, "web-search", "allow levels.friend.allow"},
        {kFriendId, kDm, "web_fetch", "deny levels.friend.deny"},
        {kFriendId, kDm, "browser", "allow levels.friend.allow"},
        {kFriendId, kDm, "plugin_x", "deny levels.family"},
        {kFriendId, kDm, "remove", "deny rules.no-removing"},
        {kFriendId, kDm, "message", "ask levels.friend.ask"},
        {kFriendId, kDm, "sessions_send", "deny levels.family"},
        {kFriendId, kDm, "cron", "deny levels.friend"},
        {kFriendId, kDm, "gateway", "deny levels.friend"},
        {kFriendId, kDm, "nodes", "deny levels.friend"},
        {kFriendId, kDm, "canvas", "deny levels.friend"},
        {kFriendId, kDm, "sessions_list", "deny levels.friend"},
        {kFriendId, kDm, "never_heard_of", "deny levels.friend"},
        {kFriendId, kDm, "memory_get", "allow rules.night-shift"},
        {kFriendId, kDm, "memory_search", "allow rules.night-shift"},
        {"telegram:3", kDm, "memory_get", "deny levels.friend"},
        {kFriendId, kGroup, "write", "ask rules.ask-in-group"},
        {kFriendId, kGroup, "remove", "deny rules.no-removing"},
        {kListedId, kDm, "exec", "allow levels.friend.allow"},
        {kListedId, kDm, "memory_get", "deny levels.friend"},
        {kListedId, kDm, "cron", "deny levels.friend"},
        {kStrangerId, kDm, "exec", "deny levels.stranger"},
        {kStrangerId, kDm, "bash", "deny levels.stranger"},
        {kStrangerId, kDm, "read", "allow levels.stranger.allow"},
        {kStrangerId, kDm, "list", "allow levels.stranger.allow"},
        {kStrangerId, kDm, "ls", "allow levels.stranger.allow"},
        {kStrangerId, kDm, "glob", "deny levels.stranger"},
        {kStrangerId, kDm, "write", "deny levels.stranger"},
        {kStrangerId, kDm, "remove", "deny rules.no-removing"},
        {kStrangerId, kDm, "web_fetch", "deny levels.friend.deny"},
        {kStrangerId, kDm, "message", "deny levels.stranger"},
        {kStrangerId, kDm, "cron", "deny levels.stranger"},
        {kStrangerId, kDm, "memory_get", "deny levels.stranger"},
        {kBlockedId, kDm, "read", "deny trust.blocked"},
        {kBlockedId, kMain, "exec", "deny trust.blocked"},
        // One session where nobody has a shell.
        {kOwnerId, "agent:main:whatsapp:group:999", "exec", "deny rules.no-shell-here"},
        {kFriendId, "agent:main:whatsapp:group:999", "exec", "deny rules.no-shell-here"},
        {kFriendId, "agent:main:whatsapp:group:999", "process", "deny rules.no-shell-here"},
        {kFriendId, "agent:main:whatsapp:group:999", "read", "allow levels.friend.allow"},
        {"", "agent:main:whatsapp:group:999", "exec", "deny rules.no-shell-here"},
        // Nobody is named: the sandbox's level.
        {"", kDm, "exec", "allow levels.friend.allow"},
        {"", kDm, "cron", "deny levels.friend"},
        {"", kDm, "exec", "allow levels.owner.allow", "owner"},
        {"", kDm, "cron", "allow levels.owner.allow", "owner"},
        {"", kDm, "exec", "allow levels.family.allow", "family"},
        {"", kDm, "exec", "deny levels.stranger", "stranger"},
        {"", kDm, "read", "allow levels.stranger.allow", "stranger"},
        {"", kDm, "exec", "deny levels.stranger", "a-level-that-is-gone"},
        // The lowest who ever reached the sandbox counts for all.
        {kOwnerId, kDm, "exec", "deny levels.stranger", "stranger"},
        {kOwnerId, kDm, "read", "allow levels.stranger.allow", "stranger"},
        {kOwnerId, kDm, "cron", "deny levels.friend", "friend"},
        {kOwnerId, kDm, "exec", "allow levels.friend.allow", "friend"},
        {kOwnerId, kDm, "cron", "ask levels.family.ask", "family"},
        {kFamilyId, kDm, "exec", "deny levels.stranger", "stranger"},
        {kFriendId, kDm, "exec", "allow levels.friend.allow", "owner"},
        {kFriendId, kDm, "exec", "deny levels.stranger", "stranger"},
        {kStrangerId, kDm, "exec", "deny levels.stranger", "owner"},
    };
    static_assert(std::size(kRows) >= kSandboxRows);
    for (const ToolRow& row : kRows) {
      CAPTURE(row.sender);
      CAPTURE(row.session);
      CAPTURE(row.tool);
      CAPTURE(row.kept);
      CHECK(Decide(row, ToolPlace::kSandbox, {}) == row.expected);
    }
  }

  TEST_CASE("tools on the host: placement") {
    const ToolRow kRows[] = {
        {kOwnerId, kMain, "exec", "allow levels.owner.allow"},
        {kOwnerId, kMain, "write", "allow levels.owner.allow"},
        {kOwnerId, kMain, "message", "allow levels.owner.allow"},
        {kOwnerId, kMain, "cron", "allow levels.owner.allow"},
        {"telegram:1", kMain, "exec", "allow levels.owner.allow"},
        {"", kMain, "exec", "allow levels.owner.allow"},
        {"", kMain, "cron", "allow levels.owner.allow"},
        {"", kMain, "exec", "allow levels.owner.allow", "owner"},
        {"", kMain, "exec", "deny placement.level", "friend"},
        {"", kMain, "exec", "deny placement.level", "stranger"},
        {"", kMain, "cron", "deny levels.stranger", "stranger"},
        {kOwnerId, kMain, "exec", "allow levels.owner.allow", "stranger"},
        {kOwnerId, kMain, "exec", "allow levels.owner.allow", "friend"},
        {kFamilyId, kMain, "exec", "deny placement.level"},
        {kFamilyId, kMain, "message", "allow levels.family.allow"},
        {kFriendId, kMain, "exec", "deny placement.level"},
        {kFriendId, kMain, "read", "deny placement.level"},
        {kFriendId, kMain, "ls", "deny placement.level"},
        {kFriendId, kMain, "bash", "deny placement.level"},
        {kFriendId, kMain, "web_search", "allow levels.friend.allow"},
        {kFriendId, kMain, "session_status", "allow levels.friend.allow"},
        {kFriendId, kMain, "cron", "deny levels.friend"},
        {kStrangerId, kMain, "exec", "deny placement.level"},
        {kStrangerId, kMain, "read", "deny placement.level"},
        {kStrangerId, kMain, "web_search", "deny levels.stranger"},
        {kOwnerId, kDm, "exec", "deny placement.sandboxed"},
        {kOwnerId, kDm, "read", "deny placement.sandboxed"},
        {kOwnerId, kDm, "message", "allow levels.owner.allow"},
        {kOwnerId, "agent:main:main:thread:1", "exec", "deny placement.sandboxed"},
        {kOwnerId, "agent:main:mainx", "exec", "deny placement.sandboxed"},
        {kOwnerId, "main", "exec", "deny placement.sandboxed"},
        {"", kDm, "exec", "deny placement.sandboxed"},
        {kFriendId, kDm, "exec", "deny placement.sandboxed"},
        {kStrangerId, kDm, "exec", "deny placement.sandboxed"},
        {kOwnerId, "agent:work:main", "exec", "allow levels.owner.allow"},
    };
    static_assert(std::size(kRows) >= kHostRows);
    for (const ToolRow& row : kRows) {
      CAPTURE(row.sender);
      CAPTURE(row.session);
      CAPTURE(row.tool);
      CAPTURE(row.kept);
      CHECK(Decide(row, ToolPlace::kHost, {}) == row.expected);
    }
  }

  TEST_CASE("where a tool must run is said") {
    const struct {
      const char* sender;
      const char* session;
      const char* tool;
      ToolPlace required;
    } kRows[] = {
        {kOwnerId, kMain, "exec", ToolPlace::kUnknown},
        {kFriendId, kMain, "exec", ToolPlace::kSandbox},
        {kOwnerId, kDm, "exec", ToolPlace::kSandbox},
        {kOwnerId, kDm, "write", ToolPlace::kSandbox},
        {kOwnerId, kDm, "message", ToolPlace::kUnknown},
        {"", kMain, "read", ToolPlace::kUnknown},
        {"", kDm, "read", ToolPlace::kSandbox},
    };
    static_assert(std::size(kRows) >= kPlacesRows);
    for (const auto& row : kRows) {
      CAPTURE(row.sender);
      CAPTURE(row.tool);
      const SenderId sender = ParseSender(row.sender);
      const Standing standing = House()->StandingOf(sender, "");
      const ReadOnlyFacts off;
      CHECK(House()
                ->DecideTool({.session = row.session,
                              .sender = sender,
                              .standing = standing,
                              .tool = row.tool,
                              .read_only = off})
                .required == row.required);
    }
  }

  TEST_CASE("a gateway's word on a tool's group is heeded as far as it is safe") {
    const ReadOnlyFacts off;
    const auto with_group = [&](const char* sender, const char* tool, const char* group) {
      return Decide({sender, kDm, tool, ""}, ToolPlace::kUnknown, off, group);
    };
    CHECK(with_group(kFriendId, "my_plugin", "group:fs") == "allow levels.friend.allow");
    CHECK(with_group(kFriendId, "my_plugin", "group:nodes") == "deny levels.friend");
    CHECK(with_group(kFriendId, "my_plugin", "") == "deny levels.friend");
    CHECK(with_group(kFriendId, "cron", "group:fs") == "deny levels.friend");
    CHECK(with_group(kFriendId, "exec", "group:messaging") == "ask levels.friend.ask");
    CHECK(with_group(kStrangerId, "my_plugin", "group:fs") == "deny levels.stranger");
  }

  TEST_CASE("read-only mode") {
    const Level friend_level = House()->levels().Of("friend");
    const Level owner_level = House()->levels().Of("owner");
    const struct {
      ReadOnlyFacts facts;
      const char* sender;
      const char* session;
      const char* tool;
      const char* expected;
    } kRows[] = {
        {{.all = true}, kOwnerId, kDm, "exec", "deny read-only.all"},
        {{.all = true}, kOwnerId, kMain, "exec", "deny read-only.all"},
        {{.all = true}, "", kMain, "exec", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "write", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "edit", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "apply_patch", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "mkdir", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "move", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "copy", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "remove", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "tar-in", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "input", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "process", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "message", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "sessions_send", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "cron", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "browser", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "never_heard_of", "deny read-only.all"},
        {{.all = true}, kOwnerId, kDm, "read", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "ls", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "stat", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "glob", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "grep", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "watch", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "tar-out", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "processes", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "attach", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "web_search", "allow levels.owner.allow"},
        {{.all = true}, kOwnerId, kDm, "session_status", "allow levels.owner.allow"},
        {{.all = true}, kFriendId, kDm, "read", "allow levels.friend.allow"},
        {{.all = true}, kFriendId, kDm, "exec", "deny read-only.all"},
        {{.all = true}, kStrangerId, kDm, "read", "allow levels.stranger.allow"},
        {{.all = true}, kStrangerId, kDm, "glob", "deny levels.stranger"},
        {{.level = friend_level}, kOwnerId, kDm, "exec", "allow levels.owner.allow"},
        {{.level = friend_level}, kFamilyId, kDm, "exec", "allow levels.family.allow"},
        {{.level = friend_level}, kFriendId, kDm, "exec", "deny read-only.level"},
        {{.level = friend_level}, kFriendId, kDm, "write", "deny read-only.level"},
        {{.level = friend_level}, kFriendId, kDm, "read", "allow levels.friend.allow"},
        {{.level = friend_level}, kStrangerId, kDm, "exec", "deny read-only.level"},
        {{.level = friend_level}, "", kDm, "exec", "deny read-only.level"},
        {{.level = owner_level}, kOwnerId, kDm, "exec", "deny read-only.level"},
        {{.level = owner_level}, kStrangerId, kDm, "read", "allow levels.stranger.allow"},
        {{.level = 0}, kStrangerId, kDm, "exec", "deny read-only.level"},
        {{.level = 0}, kFriendId, kDm, "exec", "allow levels.friend.allow"},
        {{.session = true}, kOwnerId, kDm, "exec", "deny read-only.session"},
        {{.session = true}, kOwnerId, kDm, "write", "deny read-only.session"},
        {{.session = true}, kOwnerId, kDm, "read", "allow levels.owner.allow"},
        {{.session = true}, kFriendId, kDm, "message", "deny read-only.session"},
        {{}, kOwnerId, kDm, "exec", "allow levels.owner.allow"},
    };
    static_assert(std::size(kRows) >= kReadOnlyRows);
    for (const auto& row : kRows) {
      CAPTURE(row.sender);
      CAPTURE(row.tool);
      CHECK(Decide({row.sender, row.session, row.tool, ""}, ToolPlace::kUnknown, row.facts) ==
            row.expected);
    }
  }

  TEST_CASE("replies: what each level may be told") {
    const ReplyGuard guard({"hunter2-but-longer"}, {"/srv/creel"}, OnSecret::kRedact);
    const char* const kKey = "use ghp_0123456789abcdefghijABCDEFGHIJ012345 for it";
    const char* const kPath = "it is in /home/alex/notes.txt, see there";
    const char* const kListing =
        "total 8\ndrwxr-xr-x 2 alex alex 4096 Jan  1 10:00 notes\n-rw-r--r-- 1 alex alex 1 Jan  1 "
        "10:00 a\n";
    const char* const kSecret = "the password is hunter2-but-longer";
    const char* const kChat = "Sure, see you at eight!";
    const struct {
      const char* level;
      const char* text;
      bool unasked;
      bool read_only;
      const char* expected;
    } kRows[] = {
        {"owner", kChat, false, false, "allow reply.clean"},
        {"owner", kKey, false, false, "allow reply.clean"},
        {"owner", kPath, false, false, "allow reply.clean"},
        {"owner", kListing, false, false, "allow reply.clean"},
        {"owner", kSecret, false, false, "redact reply.secrets"},
        {"owner", kChat, true, false, "allow reply.clean"},
        {"owner", kChat, true, true, "deny read-only.all"},
        {"owner", kChat, false, true, "allow reply.clean"},
        {"family", kChat, false, false, "allow reply.clean"},
        {"family", kKey, false, false, "redact reply.keys"},
        {"family", kPath, false, false, "allow reply.clean"},
        {"family", kListing, false, false, "redact reply.listings"},
        {"family", kSecret, false, false, "redact reply.secrets"},
        {"friend", kChat, false, false, "allow reply.clean"},
        {"friend", kKey, false, false, "redact reply.keys"},
        {"friend", kPath, false, false, "redact reply.paths"},
        {"friend", kListing, false, false, "redact reply.listings"},
        {"friend", kSecret, false, false, "redact reply.secrets"},
        {"friend", kChat, true, true, "deny read-only.all"},
        {"friend", kSecret, false, true, "redact reply.secrets"},
        {"stranger", kChat, false, false, "allow reply.clean"},
        {"stranger", kKey, false, false, "redact reply.keys"},
        {"stranger", kPath, false, false, "redact reply.paths"},
        {"stranger", kListing, false, false, "redact reply.listings"},
        {"stranger", kSecret, false, false, "redact reply.secrets"},
        {"stranger", kChat, true, true, "deny read-only.all"},
    };
    static_assert(std::size(kRows) >= kRepliesRows);
    for (const auto& row : kRows) {
      CAPTURE(row.level);
      CAPTURE(row.text);
      const ReadOnlyFacts read_only{.all = row.read_only};
      const ReplyAnswer answer =
          guard.Check(row.text, House()->RulesForReply({.readers = House()->levels().Of(row.level),
                                                        .unasked = row.unasked,
                                                        .read_only = read_only}));
      const std::string verdict = answer.verdict == ReplyVerdict::kAllow    ? "allow"
                                  : answer.verdict == ReplyVerdict::kRedact ? "redact"
                                                                            : "deny";
      CHECK(verdict + " " + answer.rule == row.expected);
      CHECK(!answer.reason.empty());
      if (answer.verdict == ReplyVerdict::kAllow) {
        CHECK(answer.text == row.text);
      }
    }
  }
}

}  // namespace
}  // namespace creel
