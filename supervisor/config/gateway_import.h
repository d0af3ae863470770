#pragma once

#include <string>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/config/yaml_tree.h"

namespace creel {

// One value of the gateway's file as a key of ours.
struct ImportedValue {
  std::string key;                 // such as `channels.whatsapp.allow_from`
  std::string pattern;             // the same as the key table has it
  std::vector<std::string> names;  // what stands for its `*`
  YamlNode node;                   // with the place in the gateway's file
  std::string source_key;          // such as `whatsapp.allowFrom`
};

// What the gateway's own configuration says that Creel can use.
struct GatewayImport {
  std::vector<ImportedValue> values;  // each key once
  std::vector<IgnoredKey> ignored;
  std::string dm_scope;
  // Values of keys that are named as secrets are. Never shown.
  std::vector<std::string> secrets;
};

// Reads a gateway's JSON5 file: OpenClaw's of today, or Clawdbot's of January 2026. Nobody becomes
// an owner by it, as the gateway's user may write that file. Errors (kInvalidArgument) name file,
// line, column and key; kNotFound, kPermissionDenied: it cannot be read.
absl::StatusOr<GatewayImport> ImportGateway(const std::string& file);

// The same for `text`, which errors call `file`.
absl::StatusOr<GatewayImport> ImportGatewayText(std::string_view text, const std::string& file);

}  // namespace creel
