// The keys of who may ask for what: levels, channels, rules, pairing, approvals, replies.
#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>
#include <string>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/config/key_table.h"
#include "supervisor/config/value_readers.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using Names = std::vector<std::string>;

constexpr size_t kMaxSenders = 65'536;
constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxSenderBytes = 300;
constexpr size_t kMaxPatternBytes = 1024;
constexpr size_t kMaxPatterns = 256;
constexpr size_t kMaxNamed = 10'000;
constexpr int64_t kPatternMemory = 1 << 20;

// A list of texts of at most `max_bytes` each, which may be long.
KeyError ReadLongList(const YamlNode& node, size_t max_items, size_t max_bytes,
                      std::vector<std::string>& out) {
  if (node.kind == YamlNode::Kind::kNull) {
    out.clear();
    return {};
  }
  if (node.kind != YamlNode::Kind::kList) {
    return std::string("wants a list, such as [one, two]");
  }
  if (node.items.size() > max_items) {
    return fmt::format("has {} items; at most {} are accepted", node.items.size(), max_items);
  }
  std::vector<std::string> list;
  list.reserve(node.items.size());
  for (const YamlNode& item : node.items) {
    std::string text;
    if (KeyError error = ReadText(item, text)) {
      return fmt::format("has an item (line {}) that {}", item.line, *error);
    }
    if (text.empty() || text.size() > max_bytes) {
      return fmt::format("has an item (line {}) of {} bytes; 1 to {} are accepted", item.line,
                         text.size(), max_bytes);
    }
    list.push_back(std::move(text));
  }
  out = std::move(list);
  return {};
}

KeyError ReadSenders(const YamlNode& node, std::vector<std::string>& out) {
  return ReadLongList(node, kMaxSenders, kMaxSenderBytes, out);
}

KeyError ReadTools(const YamlNode& node, std::vector<std::string>& out) {
  std::vector<std::string> tools;
  if (KeyError error = ReadLongList(node, 1024, kMaxNameBytes, tools)) {
    return error;
  }
  for (const std::string& tool : tools) {
    const size_t star = tool.find('*');
    if (star != std::string::npos && star + 1 != tool.size()) {
      return fmt::format("has '{}'; a `*` may stand only at the end of a tool's name",
                         Printable(tool, 80));
    }
  }
  out = std::move(tools);
  return {};
}

KeyError ReadPatterns(const YamlNode& node, std::vector<std::string>& out) {
  std::vector<std::string> patterns;
  if (KeyError error = ReadLongList(node, kMaxPatterns, kMaxPatternBytes, patterns)) {
    return error;
  }
  for (size_t i = 0; i < patterns.size(); ++i) {
    RE2::Options options;
    options.set_case_sensitive(false);
    options.set_log_errors(false);
    options.set_max_mem(kPatternMemory);
    const RE2 pattern(patterns[i], options);
    if (!pattern.ok()) {
      return fmt::format("has a pattern (line {}) that cannot be used: {}", node.items[i].line,
                         Printable(pattern.error(), 120));
    }
  }
  out = std::move(patterns);
  return {};
}

KeyError ReadPathList(const YamlNode& node, std::vector<std::string>& out) {
  std::vector<std::string> paths;
  if (KeyError error = ReadTextList(node, paths)) {
    return error;
  }
  for (size_t i = 0; i < paths.size(); ++i) {
    if (KeyError error = ReadPath(node.items[i], /*or_empty=*/false, paths[i])) {
      return fmt::format("has an item that {}", *error);
    }
  }
  out = std::move(paths);
  return {};
}

KeyError CheckName(const std::string& name) {
  const bool control =
      std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (name.empty() || name.size() > kMaxNameBytes || control) {
    return fmt::format(
        "stands below a name of {} bytes that is none: 1 to {} bytes without "
        "control characters",
        name.size(), kMaxNameBytes);
  }
  return {};
}

KeyError ReadLevelWord(const YamlNode& node, std::string& out) {
  std::string word;
  if (KeyError error = ReadText(node, word)) {
    return error;
  }
  // Whether there is such a level is known when all of the file has been read.
  if (word.empty()) {
    return std::string("wants the name of a level");
  }
  out = word;
  return {};
}

// The entry of `name` in `map`, made if need be.
template <typename Value>
KeyError Entry(std::map<std::string, Value>& map, const std::string& name, Value*& out) {
  if (KeyError error = CheckName(name)) {
    return error;
  }
  if (map.size() >= kMaxNamed && !map.contains(name)) {
    return fmt::format("is one of more than {} such names", kMaxNamed);
  }
  out = &map[name];
  return {};
}

// Each makes a reader for a field of the named level, channel, group or rule.

template <typename Read>
auto OfLevel(Read read) {
  return [read](const YamlNode& node, const Names& names, Config& config) -> KeyError {
    LevelConfig* level = nullptr;
    KeyError error = Entry(config.policy.levels, names[0], level);
    return error ? error : read(node, *level);
  };
}

template <typename Read>
auto OfChannel(Read read) {
  return [read](const YamlNode& node, const Names& names, Config& config) -> KeyError {
    ChannelConfig* channel = nullptr;
    KeyError error = Entry(config.policy.channels, names[0], channel);
    return error ? error : read(node, *channel);
  };
}

template <typename Read>
auto OfGroup(Read read) {
  return [read](const YamlNode& node, const Names& names, Config& config) -> KeyError {
    ChannelConfig* channel = nullptr;
    if (KeyError error = Entry(config.policy.channels, names[0], channel)) {
      return error;
    }
    GroupConfig* group = nullptr;
    KeyError error = Entry(channel->groups, names[1], group);
    return error ? error : read(node, *group);
  };
}

template <typename Read>
auto OfRule(Read read) {
  return [read](const YamlNode& node, const Names& names, Config& config) -> KeyError {
    RuleConfig* rule = nullptr;
    KeyError error = Entry(config.policy.rules, names[0], rule);
    return error ? error : read(node, *rule);
  };
}

template <typename Enum>
KeyError ReadEnum(const YamlNode& node, const std::vector<std::string>& words, Enum& out) {
  size_t index = 0;
  KeyError error = ReadChoice(node, words, index);
  if (!error) {
    out = static_cast<Enum>(index);
  }
  return error;
}

KeyError ReadSeconds(const YamlNode& node, milliseconds least, milliseconds most,
                     std::chrono::seconds& out) {
  milliseconds value{};
  KeyError error = ReadDuration(node, least, most, value);
  if (!error) {
    out = std::chrono::duration_cast<std::chrono::seconds>(value);
  }
  return error;
}

// A value that may also be 0, whatever its least is otherwise.
template <typename Read, typename Value>
KeyError ReadOrZero(const YamlNode& node, Read read, Value& out) {
  std::string text;
  if (!ReadText(node, text) && text == "0") {
    out = 0;
    return {};
  }
  return read(node);
}

KeyError ReadRank(const YamlNode& node, LevelConfig& level) {
  uint64_t rank = 0;
  KeyError error = ReadWhole(node, 0, 100, rank);
  if (!error) {
    level.rank = static_cast<uint32_t>(rank);
  }
  return error;
}

KeySpec Named(std::string path, std::string example, std::string kind, std::string default_value,
              std::string text, decltype(KeySpec::read_named) read) {
  return {.path = std::move(path),
          .kind = std::move(kind),
          .default_value = std::move(default_value),
          .text = std::move(text),
          .read = {},
          .read_named = std::move(read),
          .example = std::move(example)};
}

void AddLevels(std::vector<KeySpec>& keys) {
  const auto add = [&](const char* word, const char* kind, const char* default_value,
                       const char* text, decltype(KeySpec::read_named) read) {
    keys.push_back(Named(fmt::format("levels.*.{}", word), fmt::format("levels.friend.{}", word),
                         kind, default_value, text, std::move(read)));
  };
  add("rank", "number", "50",
      "Where the level stands: `owner` 100, `friend` 50, `stranger` 0; for a level of your own "
      "between them.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadRank(n, l); }));
  add("members", "list of senders", "[]",
      "Who has it: `channel:id`; a number without a channel is WhatsApp's. Owners are those who "
      "stand here, and nobody else.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadSenders(n, l.members); }));
  add("allow", "list of tools", "[group:runtime, group:fs, web_search, session_status]",
      "Tools and groups that may be used; the rest is denied. `owner`: `[\"*\"]`; `stranger`: "
      "`[]`.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadTools(n, l.allow); }));
  add("ask", "list of tools", "[group:messaging]",
      "What the operator is asked for, each time. Default of other levels: `[]`.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadTools(n, l.ask); }));
  add("deny", "list of tools", "[]",
      "What is never allowed, for this level and all below it; wins over `allow` and `ask`.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadTools(n, l.deny); }));
  add("host", "true or false", "false",
      "Tools may run on the host, in the main session. `owner`: `true`.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadBool(n, l.host); }));
  add("read_only", "true or false", "false",
      "Read-only mode for this level and all below it; `creel read-only` cannot end it.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadBool(n, l.read_only); }));
  add("commands", "true or false", "false",
      "May give commands to the gateway (`/model` and the like). `owner`: `true`.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadBool(n, l.commands); }));
  add("keys", "true or false", "false",
      "Replies may hold what looks like a key. Known secrets go to nobody. `owner`: `true`.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadBool(n, l.keys); }));
  add("paths", "true or false", "false", "Replies may hold paths of the host. `owner`: `true`.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadBool(n, l.paths); }));
  add("listings", "true or false", "false", "Replies may hold directory listings. `owner`: `true`.",
      OfLevel([](const YamlNode& n, LevelConfig& l) { return ReadBool(n, l.listings); }));
  add("limits.memory", "size", "0",
      "Memory of the level's sandboxes, 64MiB and up. 0: as `sandbox.limits`. A level never gets "
      "more than one above it. A sandbox whose level falls gets its new level's limits at once.",
      OfLevel([](const YamlNode& n, LevelConfig& l) {
        return ReadOrZero(
            n,
            [&](const YamlNode& node) {
              return ReadSize(node, uint64_t{64} << 20, uint64_t{16} << 40, l.limits.memory_bytes);
            },
            l.limits.memory_bytes);
      }));
  add("limits.cpus", "number", "0", "Their processor cores, 0.01 to 1024. 0: as above.",
      OfLevel([](const YamlNode& n, LevelConfig& l) {
        return ReadOrZero(
            n, [&](const YamlNode& node) { return ReadNumber(node, 0.01, 1024, l.limits.cpus); },
            l.limits.cpus);
      }));
  add("limits.pids", "number", "0", "Their processes and threads, 16 to 65536. 0: as above.",
      OfLevel([](const YamlNode& n, LevelConfig& l) {
        return ReadOrZero(
            n,
            [&](const YamlNode& node) {
              uint64_t pids = l.limits.pids;
              KeyError error = ReadWhole(node, 16, 65'536, pids);
              l.limits.pids = static_cast<uint32_t>(pids);
              return error;
            },
            l.limits.pids);
      }));
}

void AddChannels(std::vector<KeySpec>& keys) {
  const auto add = [&](const char* word, const char* kind, const char* default_value,
                       const char* text, decltype(KeySpec::read_named) read) {
    keys.push_back(Named(fmt::format("channels.*.{}", word),
                         fmt::format("channels.whatsapp.{}", word), kind, default_value, text,
                         std::move(read)));
  };
  add("dm_policy", "pairing, allowlist, open or disabled", "pairing",
      "Direct messages of strangers: answered with a code that the operator approves; dropped; let "
      "in (`open`, which also wants `allow_from: [\"*\"]`); or no direct messages at all.",
      OfChannel([](const YamlNode& n, ChannelConfig& c) {
        return ReadEnum(n, {"pairing", "allowlist", "open", "disabled"}, c.dm_policy);
      }));
  add("allow_from", "list of senders", "[]", "Senders of this channel who are friends.",
      OfChannel([](const YamlNode& n, ChannelConfig& c) { return ReadSenders(n, c.allow_from); }));
  add("group_policy", "allowlist, open or disabled", "allowlist",
      "Groups: only those under `groups`, and there only friends and `group_allow_from`; anybody "
      "in "
      "them, and any group if none is listed; or none.",
      OfChannel([](const YamlNode& n, ChannelConfig& c) {
        return ReadEnum(n, {"allowlist", "open", "disabled"}, c.group_policy);
      }));
  add("group_allow_from", "list of senders", "[]",
      "Who may speak to the model in groups besides friends; `*`: everybody. They stay strangers.",
      OfChannel(
          [](const YamlNode& n, ChannelConfig& c) { return ReadSenders(n, c.group_allow_from); }));
  add("mention_patterns", "list of patterns", "[]",
      "As the key of that name below, for this channel alone.",
      OfChannel(
          [](const YamlNode& n, ChannelConfig& c) { return ReadPatterns(n, c.mention_patterns); }));
  add("own_id", "text", "", "The gateway's own id there, for `creel doctor`.",
      OfChannel([](const YamlNode& n, ChannelConfig& c) { return ReadText(n, c.own_id); }));
  const auto add_group = [&](const char* word, const char* kind, const char* default_value,
                             const char* text, decltype(KeySpec::read_named) read) {
    keys.push_back(Named(fmt::format("channels.*.groups.*.{}", word),
                         fmt::format("channels.whatsapp.groups.\"120363000000000000\".{}", word),
                         kind, default_value, text, std::move(read)));
  };
  add_group(
      "require_mention", "true or false", "true",
      "Only messages that mention the gateway reach the model. The group's name may be `*`: "
      "any other.",
      OfGroup([](const YamlNode& n, GroupConfig& g) { return ReadBool(n, g.require_mention); }));
  add_group(
      "allow_from", "list of senders", "[]",
      "Who may speak to the model in this group, instead of the channel's `group_allow_from`.",
      OfGroup([](const YamlNode& n, GroupConfig& g) { return ReadSenders(n, g.allow_from); }));
}

void AddRules(std::vector<KeySpec>& keys) {
  const auto add = [&](const char* word, const char* kind, const char* default_value,
                       const char* text, decltype(KeySpec::read_named) read) {
    keys.push_back(Named(fmt::format("rules.*.{}", word), fmt::format("rules.example.{}", word),
                         kind, default_value, text, std::move(read)));
  };
  add("verdict", "deny, ask or allow", "deny",
      "What the rule says to the calls that it is for. deny wins over ask, ask over allow.",
      OfRule([](const YamlNode& n, RuleConfig& r) {
        return ReadEnum(n, {"deny", "ask", "allow"}, r.verdict);
      }));
  add("tools", "list of tools", "[]", "Tools and groups that it is for; `*`: all.",
      OfRule([](const YamlNode& n, RuleConfig& r) { return ReadTools(n, r.tools); }));
  add("levels", "list of levels", "[]",
      "Levels that it is for. Empty: all. A deny or ask is for those below as well.",
      OfRule([](const YamlNode& n, RuleConfig& r) { return ReadTextList(n, r.levels); }));
  add("sessions", "list of texts", "[]",
      "Session keys that it is for, a `*` for any text. Empty: all.",
      OfRule([](const YamlNode& n, RuleConfig& r) { return ReadTextList(n, r.sessions); }));
  add("senders", "list of senders", "[]", "Senders that it is for. Empty: all.",
      OfRule([](const YamlNode& n, RuleConfig& r) { return ReadSenders(n, r.senders); }));
  add("reason", "text", "", "What those who meet it are told.",
      OfRule([](const YamlNode& n, RuleConfig& r) { return ReadText(n, r.reason); }));
}

}  // namespace

KeyError MakeNamedEntry(const std::string& form, const std::vector<std::string>& names,
                        Config& config) {
  if (form == "levels.*") {
    LevelConfig* level = nullptr;
    return Entry(config.policy.levels, names[0], level);
  }
  if (form == "rules.*") {
    RuleConfig* rule = nullptr;
    return Entry(config.policy.rules, names[0], rule);
  }
  if (form == "channels.*" || form == "channels.*.groups.*") {
    ChannelConfig* channel = nullptr;
    KeyError error = Entry(config.policy.channels, names[0], channel);
    GroupConfig* group = nullptr;
    return error || names.size() < 2 ? error : Entry(channel->groups, names[1], group);
  }
  return {};
}

std::vector<KeySpec> PolicyKeys() {
  std::vector<KeySpec> keys;
  AddLevels(keys);
  AddChannels(keys);
  AddRules(keys);
  keys.push_back({"pairing.code_lifetime", "time", "1h", "How long a code holds. 1m to 7d.",
                  [](const YamlNode& n, Config& c) {
                    return ReadSeconds(n, std::chrono::minutes(1), std::chrono::hours(7 * 24),
                                       c.policy.pairing_lifetime);
                  }});
  keys.push_back({"pairing.max_pending", "number", "3",
                  "Codes that wait at once on one account of a channel. 1 to 100.",
                  [](const YamlNode& n, Config& c) {
                    uint64_t value = 0;
                    KeyError error = ReadWhole(n, 1, 100, value);
                    if (!error) {
                      c.policy.pairing_pending = static_cast<uint32_t>(value);
                    }
                    return error;
                  }});
  keys.push_back({"approvals.timeout", "time", "5m",
                  "How long the operator has to answer; then the call is denied. 10s to 1d.",
                  [](const YamlNode& n, Config& c) {
                    return ReadSeconds(n, std::chrono::seconds(10), std::chrono::hours(24),
                                       c.policy.approval_timeout);
                  }});
  keys.push_back({"replies.on_secret", "redact or deny", "redact",
                  "What happens to a reply that holds a known secret: the secret is masked, or "
                  "nothing of the reply leaves.",
                  [](const YamlNode& n, Config& c) {
                    return ReadEnum(n, {"redact", "deny"}, c.policy.on_secret);
                  }});
  keys.push_back(
      {"replies.secret_files", "list of paths", "[]",
       "Files whose content (or each `NAME=VALUE` line's value) never leaves in a reply.",
       [](const YamlNode& n, Config& c) { return ReadPathList(n, c.policy.secret_files); }});
  keys.push_back(
      {"replies.host_paths", "list of paths", "[]",
       "Folders of the host whose paths count as such, besides home folders and Creel's "
       "own.",
       [](const YamlNode& n, Config& c) { return ReadPathList(n, c.policy.host_paths); }});
  keys.push_back({"trust.blocked", "list of senders", "[]",
                  "Senders whose messages are dropped and whose tools are denied.",
                  [](const YamlNode& n, Config& c) { return ReadSenders(n, c.policy.blocked); }});
  keys.push_back({"trust.unnamed", "level", "friend",
                  "The level of a sandbox that no named sender has reached yet.",
                  [](const YamlNode& n, Config& c) { return ReadLevelWord(n, c.policy.unnamed); }});
  keys.push_back(
      {"mention_patterns", "list of patterns", "[]",
       "A group message that matches one (RE2, any case) mentions the gateway.",
       [](const YamlNode& n, Config& c) { return ReadPatterns(n, c.policy.mention_patterns); }});
  keys.push_back(
      {"read_only", "true or false", "false",
       "Read-only mode for everyone: no shell, no writing, no messages of the model's own "
       "accord. `creel read-only` cannot end it.",
       [](const YamlNode& n, Config& c) { return ReadBool(n, c.policy.read_only); }});
  return keys;
}

}  // namespace creel
