#include "supervisor/daemon/gateway_findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/config/json5.h"

namespace creel {
namespace {

using Path = std::initializer_list<std::string_view>;

// Null where there is none.
const YamlNode* Child(const YamlNode* node, std::string_view key) {
  if (node == nullptr || node->kind != YamlNode::Kind::kMap) {
    return nullptr;
  }
  const auto found = std::find_if(node->entries.begin(), node->entries.end(),
                                  [&](const auto& entry) { return entry.first.text == key; });
  return found == node->entries.end() ? nullptr : &found->second;
}

const YamlNode* At(const YamlNode* node, Path path) {
  for (const std::string_view key : path) {
    node = Child(node, key);
  }
  return node;
}

// Empty where there is none or where it is no scalar.
std::string TextOf(const YamlNode* node) {
  return node == nullptr || node->kind != YamlNode::Kind::kScalar ? std::string() : node->text;
}

bool Holds(const YamlNode* list, std::string_view word) {
  return list != nullptr && list->kind == YamlNode::Kind::kList &&
         std::any_of(list->items.begin(), list->items.end(),
                     [&](const YamlNode& item) { return item.text == word; });
}

bool Includes(const YamlNode& node) {
  return std::any_of(node.items.begin(), node.items.end(), Includes) ||
         std::any_of(node.entries.begin(), node.entries.end(), [](const auto& entry) {
           return entry.first.text == "$include" || Includes(entry.second);
         });
}

class Findings {
 public:
  Findings(const YamlNode& root, const std::string& file) : root_(&root), file_(file) {}

  std::vector<Finding> All() {
    if (Includes(*root_)) {
      Add("gateway.include", Severity::kWarning, "the file includes others",
          "what stands behind $include is not looked at",
          "look at each of them as well, or write their keys into this file");
    }
    DirectMessages();
    Sandboxes(At(root_, {"agents", "defaults", "sandbox"}), "agents.defaults.sandbox");
    if (const YamlNode* const agents = At(root_, {"agents", "entries"});
        agents != nullptr && agents->kind == YamlNode::Kind::kMap) {
      for (const auto& [name, agent] : agents->entries) {
        Overrides(Child(&agent, "sandbox"),
                  fmt::format("agents.entries.{}.sandbox", Printable(name.text, 80)));
      }
    }
    Plugin();
    Elevated();
    if (found_.empty()) {
      Add("gateway", Severity::kOk,
          fmt::format("{} gives every session but the owner's a sandbox of Creel's",
                      Printable(file_, 300)),
          "", "");
    }
    return std::move(found_);
  }

 private:
  void Add(std::string id, Severity severity, std::string title, std::string why, std::string fix) {
    found_.push_back({.id = std::move(id),
                      .severity = severity,
                      .title = std::move(title),
                      .why = std::move(why),
                      .fix = std::move(fix)});
  }

  // `main`, the default, puts every direct message into the session that runs on the host.
  void DirectMessages() {
    const YamlNode* const node = At(root_, {"session", "dmScope"});
    const std::string scope = TextOf(node);
    if (scope == "per-channel-peer" || scope == "per-account-channel-peer" || scope == "per-peer") {
      return;
    }
    Add("gateway.dm-scope", Severity::kError,
        "direct messages of everybody land in the owner's main session",
        fmt::format(
            "session.dmScope {}; what a stranger writes is then read by the model beside the "
            "owner's words, in the session that the gateway runs on the host. Creel refuses "
            "others the host there, and the conversation is shared all the same",
            node == nullptr   ? "is not set, which means main"
            : scope == "main" ? "is main"
                              : fmt::format("is '{}', which is none of the gateway's words",
                                            Printable(scope, 64))),
        "set session: {dmScope: \"per-channel-peer\"}");
  }

  void Sandboxes(const YamlNode* sandbox, const std::string& path) {
    const std::string mode = TextOf(Child(sandbox, "mode"));
    if (mode != "non-main" && mode != "all") {
      Add("gateway.sandbox-off", Severity::kError, "the gateway gives no session a sandbox",
          fmt::format("{}.mode is {}", path, mode.empty() ? "not set" : Printable(mode, 64)),
          fmt::format("set {}.mode to \"non-main\" or \"all\"", path));
    }
    const std::string backend = TextOf(Child(sandbox, "backend"));
    if (backend != "creel") {
      Add("gateway.backend", Severity::kError, "the gateway's sandboxes are not Creel's",
          fmt::format("{}.backend is {}", path,
                      backend.empty() ? "not set, which means docker" : Printable(backend, 64)),
          fmt::format("set {}.backend to \"creel\"", path));
    }
  }

  // Of one agent: what is left out there is as in the defaults.
  void Overrides(const YamlNode* sandbox, const std::string& path) {
    if (TextOf(Child(sandbox, "mode")) == "off") {
      Add("gateway.sandbox-off", Severity::kError, "an agent of the gateway has no sandbox",
          fmt::format("{}.mode is off", path),
          fmt::format("set {}.mode to \"non-main\" or \"all\", or leave it out", path));
    }
    const std::string backend = TextOf(Child(sandbox, "backend"));
    if (!backend.empty() && backend != "creel") {
      Add("gateway.backend", Severity::kError, "an agent's sandboxes are not Creel's",
          fmt::format("{}.backend is {}", path, Printable(backend, 64)),
          fmt::format("set {}.backend to \"creel\", or leave it out", path));
    }
  }

  void Plugin() {
    const YamlNode* const plugins = Child(root_, "plugins");
    std::string why;
    if (TextOf(Child(plugins, "enabled")) == "false") {
      why = "plugins.enabled is false";
    } else if (Child(plugins, "allow") != nullptr && !Holds(Child(plugins, "allow"), "creel")) {
      why = "plugins.allow does not hold creel";
    } else if (Holds(Child(plugins, "deny"), "creel")) {
      why = "plugins.deny holds creel";
    } else if (TextOf(At(plugins, {"entries", "creel", "enabled"})) != "true") {
      why = "plugins.entries.creel.enabled is not true";
    }
    if (!why.empty()) {
      Add("gateway.plugin", Severity::kError, "the gateway does not load Creel's plugin", why,
          "see docs/gateways.md: plugins.allow, plugins.load.paths and plugins.entries.creel");
    }
  }

  void Elevated() {
    if (TextOf(At(root_, {"tools", "elevated", "enabled"})) != "false") {
      Add("gateway.elevated", Severity::kWarning,
          "a session may ask the gateway to run a command on the host",
          "tools.elevated.enabled is not false; Creel refuses it below the level that may use the "
          "host",
          "set tools: {elevated: {enabled: false}}");
    }
  }

  const YamlNode* const root_;
  const std::string& file_;
  std::vector<Finding> found_;
};

}  // namespace

absl::StatusOr<std::vector<Finding>> CheckGatewayConfig(const std::string& text,
                                                        const std::string& file) {
  ASSIGN_OR_RETURN(const YamlNode root, ParseJson5(text, file));
  if (root.kind != YamlNode::Kind::kMap) {
    return absl::InvalidArgumentError(
        fmt::format("{}: a gateway's configuration is an object", Printable(file, 512)));
  }
  return Findings(root, file).All();
}

}  // namespace creel
