#include "supervisor/config/gateway_import.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/config/json5.h"
#include "supervisor/config/read_file.h"

namespace creel {
namespace {

constexpr size_t kMaxFileBytes = (16u << 20) + 1;
constexpr size_t kMaxIgnored = 1000;
constexpr size_t kMinSecret = 8;
constexpr size_t kMaxSecrets = 1000;

// Channels that stood at the top of the file in January 2026.
constexpr std::array<std::string_view, 8> kOldChannels{"whatsapp", "telegram", "discord", "slack",
                                                       "signal",   "imessage", "msteams", "sms"};

// Whether a key of this name holds a secret.
bool NamesSecret(std::string_view key) {
  std::string word;
  for (const char c : key) {
    if (c != '_' && c != '-') {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  for (const std::string_view end : {"token", "apikey", "secret", "password", "privatekey"}) {
    if (word.ends_with(end)) {
      return true;
    }
  }
  return false;
}

// `512m`, `1g`, `1.5GB` or bytes, as Docker has them, in bytes.
std::optional<uint64_t> DockerSize(const std::string& text) {
  double count = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, count);
  if (error != std::errc() || count < 0) {
    return {};
  }
  std::string unit;
  for (const char* c = end; c != last; ++c) {
    unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
  }
  if (unit.ends_with("b") && unit.size() > 1) {
    unit.pop_back();
  }
  if (unit.ends_with("i")) {
    unit.pop_back();
  }
  const std::map<std::string, double> units{{"", 1},         {"b", 1},          {"k", 1u << 10},
                                            {"m", 1u << 20}, {"g", 1ull << 30}, {"t", 1ull << 40}};
  const auto factor = units.find(unit);
  const double bytes = factor == units.end() ? -1 : count * factor->second;
  if (bytes < 0 || bytes > 1e15) {
    return {};
  }
  return static_cast<uint64_t>(bytes);
}

class Importer {
 public:
  explicit Importer(const std::string& file) : file_(file) {}

  absl::StatusOr<GatewayImport> Import(const YamlNode& root) {
    if (root.kind != YamlNode::Kind::kMap) {
      return At(root, "the file must hold an object of the gateway's settings");
    }
    RETURN_IF_ERROR(LookAt(root, ""));
    for (const auto& [key, value] : root.entries) {
      RETURN_IF_ERROR(TopLevel(key, value));
    }
    return std::move(import_);
  }

 private:
  using Each = std::function<absl::Status(const YamlNode& key, const YamlNode& value,
                                          const std::string& path)>;

  [[nodiscard]] absl::Status At(const YamlNode& node, std::string_view why) const {
    return absl::InvalidArgumentError(
        fmt::format("{}:{}:{}: {}", file_, node.line, node.column, why));
  }

  // All of the file once: what would make it mean something else than stands there, and secrets.
  absl::Status LookAt(const YamlNode& node, const std::string& path) {
    for (const auto& [key, value] : node.entries) {
      const std::string name = path.empty() ? key.text : fmt::format("{}.{}", path, key.text);
      if (key.text.starts_with('$')) {
        return At(key, fmt::format("'{}' is not followed: Creel reads this one file; write the "
                                   "values out, or leave gateway.import away",
                                   Printable(name, 120)));
      }
      const bool secret = value.kind == YamlNode::Kind::kScalar && value.quoted &&
                          value.text.size() >= kMinSecret && NamesSecret(key.text) &&
                          value.text.find("${") == std::string::npos;
      if (secret && import_.secrets.size() < kMaxSecrets) {
        import_.secrets.push_back(value.text);
      }
      RETURN_IF_ERROR(LookAt(value, name));
    }
    for (const YamlNode& item : node.items) {
      RETURN_IF_ERROR(LookAt(item, path));
    }
    return absl::OkStatus();
  }

  void Ignore(const YamlNode& key, const std::string& path, std::string why) {
    if (import_.ignored.size() < kMaxIgnored) {
      import_.ignored.push_back({Printable(path, 200), key.line, std::move(why)});
    }
  }

  absl::Status ForEach(const YamlNode& node, const std::string& path, const Each& each) {
    if (node.kind == YamlNode::Kind::kNull) {
      return absl::OkStatus();
    }
    if (node.kind != YamlNode::Kind::kMap) {
      return At(node, fmt::format("'{}' must be an object", Printable(path, 120)));
    }
    for (const auto& [key, value] : node.entries) {
      RETURN_IF_ERROR(each(key, value, fmt::format("{}.{}", path, key.text)));
    }
    return absl::OkStatus();
  }

  [[nodiscard]] absl::Status CheckWritten(const YamlNode& node, const std::string& path) const {
    if (node.kind == YamlNode::Kind::kScalar && node.text.find("${") != std::string::npos) {
      return At(node, fmt::format("'{}' holds '${{…}}', which Creel does not fill in; write the "
                                  "value out",
                                  Printable(path, 120)));
    }
    for (const YamlNode& item : node.items) {
      RETURN_IF_ERROR(CheckWritten(item, path));
    }
    for (const auto& [key, value] : node.entries) {
      RETURN_IF_ERROR(CheckWritten(value, path));
    }
    return absl::OkStatus();
  }

  // Takes a value over. Lists that come twice, as patterns of several agents, are put together.
  absl::Status Take(const std::string& pattern, const std::vector<std::string>& names,
                    YamlNode node, const std::string& source) {
    RETURN_IF_ERROR(CheckWritten(node, source));
    std::string key;
    size_t name = 0;
    for (const char c : pattern) {
      if (c == '*') {
        key += names[name++];
      } else {
        key += c;
      }
    }
    for (ImportedValue& other : import_.values) {
      if (other.key != key) {
        continue;
      }
      if (other.node.kind == YamlNode::Kind::kList && node.kind == YamlNode::Kind::kList) {
        other.node.items.insert(other.node.items.end(), node.items.begin(), node.items.end());
      } else {
        Ignore(node, source, fmt::format("'{}' was there before", other.source_key));
      }
      return absl::OkStatus();
    }
    import_.values.push_back({.key = std::move(key),
                              .pattern = pattern,
                              .names = names,
                              .node = std::move(node),
                              .source_key = source});
    return absl::OkStatus();
  }

  static YamlNode Plain(const YamlNode& where, std::string text) {
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.text = std::move(text);
    node.line = where.line;
    node.column = where.column;
    return node;
  }

  absl::Status TopLevel(const YamlNode& key, const YamlNode& value) {
    const std::string& name = key.text;
    if (name == "channels") {
      return ForEach(value, name, [&](const YamlNode& k, const YamlNode& v, const std::string& p) {
        return Channel(k, v, p);
      });
    }
    if (std::find(kOldChannels.begin(), kOldChannels.end(), name) != kOldChannels.end()) {
      return Channel(key, value, name);
    }
    if (name == "messages" || name == "routing") {
      return Messages(value, name);
    }
    if (name == "agents" || name == "agent") {
      return ForEach(value, name, [&](const YamlNode& k, const YamlNode& v, const std::string& p) {
        return Agents(k, v, p);
      });
    }
    if (name == "session") {
      return ForEach(value, name, [&](const YamlNode& k, const YamlNode& v, const std::string& p) {
        if (k.text != "dmScope") {
          Ignore(k, p, "not of Creel's concern");
          return absl::OkStatus();
        }
        if (v.kind != YamlNode::Kind::kScalar) {
          return At(v, "'session.dmScope' must be a word");
        }
        import_.dm_scope = Printable(v.text, 64);
        return absl::OkStatus();
      });
    }
    if (name == "tools") {
      return Tools(value, name);
    }
    Ignore(key, name, "not of Creel's concern");
    return absl::OkStatus();
  }

  absl::Status Channel(const YamlNode& channel, const YamlNode& node, const std::string& path) {
    if (channel.text == "defaults") {
      Ignore(channel, path, "channels of Creel inherit nothing; write 'channels.*' in creel.yaml");
      return absl::OkStatus();
    }
    if (node.kind == YamlNode::Kind::kMap) {
      for (const auto& [key, value] : node.entries) {
        if (key.text == "enabled" && value.text == "false" && !value.quoted) {
          Ignore(channel, path, "switched off in the gateway");
          return absl::OkStatus();
        }
      }
    }
    const std::vector<std::string> names{channel.text};
    static const std::map<std::string, std::string> kKeys{
        {"dmPolicy", "channels.*.dm_policy"},
        {"allowFrom", "channels.*.allow_from"},
        {"groupPolicy", "channels.*.group_policy"},
        {"groupAllowFrom", "channels.*.group_allow_from"},
        {"mentionPatterns", "channels.*.mention_patterns"}};
    return ForEach(
        node, path,
        [&](const YamlNode& key, const YamlNode& value, const std::string& p) -> absl::Status {
          if (const auto known = kKeys.find(key.text); known != kKeys.end()) {
            return Take(known->second, names, value, p);
          }
          if (key.text == "dm" && value.kind == YamlNode::Kind::kMap) {
            return ForEach(value, p,
                           [&](const YamlNode& k, const YamlNode& v, const std::string& deep) {
                             if (k.text == "policy") {
                               return Take("channels.*.dm_policy", names, v, deep);
                             }
                             if (k.text == "allowFrom") {
                               return Take("channels.*.allow_from", names, v, deep);
                             }
                             Ignore(k, deep, "not of Creel's concern");
                             return absl::OkStatus();
                           });
          }
          if (key.text == "groups") {
            return ForEach(value, p,
                           [&](const YamlNode& k, const YamlNode& v, const std::string& deep) {
                             return Group(channel.text, k, v, deep);
                           });
          }
          Ignore(key, p,
                 key.text == "accounts" ? "accounts are not told apart; write the senders into "
                                          "creel.yaml"
                                        : "not of Creel's concern");
          return absl::OkStatus();
        });
  }

  absl::Status Group(const std::string& channel, const YamlNode& group, const YamlNode& node,
                     const std::string& path) {
    const std::vector<std::string> names{channel, group.text};
    // A group that is listed is allowed, whatever else is said of it.
    YamlNode mention = Plain(group, "true");
    std::string source = path;
    if (node.kind == YamlNode::Kind::kMap) {
      for (const auto& [key, value] : node.entries) {
        if (key.text == "enabled" && value.text == "false" && !value.quoted) {
          Ignore(group, path, "switched off in the gateway");
          return absl::OkStatus();
        }
        if (key.text == "requireMention") {
          mention = value;
          source = path + ".requireMention";
        }
      }
    }
    RETURN_IF_ERROR(Take("channels.*.groups.*.require_mention", names, std::move(mention), source));
    return ForEach(node, path,
                   [&](const YamlNode& key, const YamlNode& value, const std::string& p) {
                     if (key.text == "allowFrom") {
                       return Take("channels.*.groups.*.allow_from", names, value, p);
                     }
                     if (key.text != "requireMention" && key.text != "enabled") {
                       Ignore(key, p, "not of Creel's concern");
                     }
                     return absl::OkStatus();
                   });
  }

  absl::Status GroupChat(const YamlNode& node, const std::string& path) {
    return ForEach(node, path,
                   [&](const YamlNode& key, const YamlNode& value, const std::string& p) {
                     if (key.text == "mentionPatterns") {
                       return Take("mention_patterns", {}, value, p);
                     }
                     Ignore(key, p, "not of Creel's concern");
                     return absl::OkStatus();
                   });
  }

  absl::Status Messages(const YamlNode& node, const std::string& path) {
    return ForEach(node, path,
                   [&](const YamlNode& key, const YamlNode& value, const std::string& p) {
                     if (key.text == "groupChat") {
                       return GroupChat(value, p);
                     }
                     if (key.text == "allowFrom" && path == "routing") {
                       return Take("channels.*.allow_from", {"whatsapp"}, value, p);
                     }
                     Ignore(key, p, "not of Creel's concern");
                     return absl::OkStatus();
                   });
  }

  absl::Status Agents(const YamlNode& key, const YamlNode& value, const std::string& path) {
    if (key.text == "sandbox") {
      return SandboxSettings(value, path);
    }
    if (key.text == "defaults" && value.kind == YamlNode::Kind::kMap) {
      return ForEach(value, path, [&](const YamlNode& k, const YamlNode& v, const std::string& p) {
        if (k.text == "sandbox") {
          return SandboxSettings(v, p);
        }
        Ignore(k, p, "not of Creel's concern");
        return absl::OkStatus();
      });
    }
    if (key.text == "entries") {
      return ForEach(value, path, [&](const YamlNode& k, const YamlNode& v, const std::string& p) {
        return Agent(k, v, p);
      });
    }
    if (key.text == "list" && value.kind == YamlNode::Kind::kList) {
      for (size_t i = 0; i < value.items.size(); ++i) {
        RETURN_IF_ERROR(Agent(value.items[i], value.items[i], fmt::format("{}[{}]", path, i)));
      }
      return absl::OkStatus();
    }
    Ignore(key, path,
           key.text == "elevated" ? "nobody leaves the sandbox; the main session is the owner's"
                                  : "not of Creel's concern");
    return absl::OkStatus();
  }

  absl::Status Agent(const YamlNode& agent, const YamlNode& node, const std::string& path) {
    if (node.kind != YamlNode::Kind::kMap) {
      return At(agent, fmt::format("'{}' must be an object", Printable(path, 120)));
    }
    return ForEach(node, path, [&](const YamlNode& k, const YamlNode& v, const std::string& p) {
      if (k.text == "groupChat") {
        return GroupChat(v, p);
      }
      if (k.text == "sandbox" || k.text == "tools") {
        Ignore(k, p, "settings of one agent are not taken; Creel's rules can name its sessions");
      }
      return absl::OkStatus();
    });
  }

  absl::Status SandboxSettings(const YamlNode& node, const std::string& path) {
    return ForEach(
        node, path,
        [&](const YamlNode& key, const YamlNode& value, const std::string& p) -> absl::Status {
          const std::string& word = key.text;
          if (word == "mode") {
            if (value.text == "off") {
              Ignore(key, p, "the gateway's own sandbox is off; Creel's is not switched off by it");
              return absl::OkStatus();
            }
            return Take("sandbox.mode", {}, value, p);
          }
          if (word == "scope") {
            return Take("sandbox.scope", {}, value, p);
          }
          if (word == "perSession") {
            if (value.text != "true" && value.text != "false") {
              return At(value, fmt::format("'{}' wants true or false", p));
            }
            return Take("sandbox.scope", {},
                        Plain(value, value.text == "true" ? "session" : "shared"), p);
          }
          if (word == "workspaceAccess") {
            return Take("sandbox.workspace_access", {}, value, p);
          }
          if (word == "workspaceRoot") {
            if (value.text.starts_with('~')) {
              Ignore(key, p,
                     "whose home `~` is does not stand here; write the path into "
                     "sandbox.workspace_roots");
              return absl::OkStatus();
            }
            YamlNode list = Plain(value, "");
            list.kind = YamlNode::Kind::kList;
            list.items.push_back(value);
            return Take("sandbox.workspace_roots", {}, std::move(list), p);
          }
          if (word == "docker") {
            return ForEach(value, p,
                           [&](const YamlNode& k, const YamlNode& v, const std::string& deep) {
                             return Docker(k, v, deep);
                           });
          }
          if (word == "prune") {
            return ForEach(value, p,
                           [&](const YamlNode& k, const YamlNode& v, const std::string& deep) {
                             return Prune(k, v, deep);
                           });
          }
          if (word == "tools") {
            return SandboxTools(value, p);
          }
          Ignore(key, p, "not of Creel's concern");
          return absl::OkStatus();
        });
  }

  absl::Status Docker(const YamlNode& key, const YamlNode& value, const std::string& path) {
    static const std::map<std::string, std::string> kKeys{{"image", "sandbox.image"},
                                                          {"workdir", "sandbox.workdir"},
                                                          {"cpus", "sandbox.limits.cpus"},
                                                          {"env", "sandbox.env"}};
    if (const auto known = kKeys.find(key.text); known != kKeys.end()) {
      return Take(known->second, {}, value, path);
    }
    if (key.text == "pidsLimit") {
      if (value.text == "0" || value.text.starts_with('-')) {
        Ignore(key, path, "a sandbox without that limit is not made");
        return absl::OkStatus();
      }
      return Take("sandbox.limits.pids", {}, value, path);
    }
    if (key.text == "memory") {
      const std::optional<uint64_t> bytes = value.kind == YamlNode::Kind::kScalar
                                                ? DockerSize(value.text)
                                                : std::optional<uint64_t>();
      if (!bytes) {
        return At(value, fmt::format("'{}' wants a size such as 512m, not '{}'", path,
                                     Printable(value.text, 40)));
      }
      return Take("sandbox.limits.memory", {}, Plain(value, fmt::format("{}", *bytes)), path);
    }
    static const std::map<std::string, std::string> kWhy{
        {"network", "a sandbox has no network card; the egress rules say what leaves it"},
        {"binds", "folders of the host come in only as workspaces"},
        {"setupCommand", "put it into the image"},
        {"user", "tools run as a user id of Creel's own"},
        {"ulimits", "see sandbox.limits"},
        {"memorySwap", "no swap comes on top of the memory"}};
    const auto why = kWhy.find(key.text);
    Ignore(key, path, why == kWhy.end() ? "Creel sets this itself" : why->second);
    return absl::OkStatus();
  }

  absl::Status Prune(const YamlNode& key, const YamlNode& value, const std::string& path) {
    const bool idle = key.text == "idleHours";
    if (!idle && key.text != "maxAgeDays") {
      Ignore(key, path, "not of Creel's concern");
      return absl::OkStatus();
    }
    if (value.kind != YamlNode::Kind::kScalar || value.quoted) {
      return At(value, fmt::format("'{}' wants a number", path));
    }
    if (value.text == "0") {
      Ignore(key, path, "sandboxes that are never closed are not kept");
      return absl::OkStatus();
    }
    return Take(idle ? "sessions.idle_timeout" : "sessions.max_age", {},
                Plain(value, value.text + (idle ? "h" : "d")), path);
  }

  // The gateway's rules for tools in a sandbox are those of friends and all below.
  absl::Status SandboxTools(const YamlNode& node, const std::string& path) {
    return ForEach(node, path,
                   [&](const YamlNode& key, const YamlNode& value, const std::string& p) {
                     if (key.text == "allow" || key.text == "alsoAllow") {
                       return Take("levels.*.allow", {"friend"}, value, p);
                     }
                     if (key.text == "deny") {
                       return Take("levels.*.deny", {"friend"}, value, p);
                     }
                     Ignore(key, p, "not of Creel's concern");
                     return absl::OkStatus();
                   });
  }

  absl::Status Tools(const YamlNode& node, const std::string& path) {
    return ForEach(
        node, path, [&](const YamlNode& key, const YamlNode& value, const std::string& p) {
          if (key.text == "sandbox") {
            return ForEach(value, p,
                           [&](const YamlNode& k, const YamlNode& v, const std::string& deep) {
                             if (k.text == "tools") {
                               return SandboxTools(v, deep);
                             }
                             Ignore(k, deep, "not of Creel's concern");
                             return absl::OkStatus();
                           });
          }
          Ignore(key, p,
                 key.text == "elevated"
                     ? "nobody leaves the sandbox; the main session is the owner's"
                 : key.text == "toolsBySender" ? "write a rule that names the senders (rules.*)"
                                               : "the gateway heeds it itself");
          return absl::OkStatus();
        });
  }

  const std::string& file_;
  GatewayImport import_;
};

}  // namespace

absl::StatusOr<GatewayImport> ImportGatewayText(std::string_view text, const std::string& file) {
  ASSIGN_OR_RETURN(const YamlNode root, ParseJson5(text, file));
  return Importer(file).Import(root);
}

absl::StatusOr<GatewayImport> ImportGateway(const std::string& file) {
  absl::StatusOr<std::string> text = ReadWholeFile(file, kMaxFileBytes);
  if (!text.ok()) {
    return Annotate(text.status(), "gateway.import");
  }
  return ImportGatewayText(*text, file);
}

}  // namespace creel
