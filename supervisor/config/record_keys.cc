#include "supervisor/config/record_keys.h"

#include <fmt/format.h>

#include <utility>

#include "supervisor/config/value_readers.h"

namespace creel {
namespace {

using std::chrono::milliseconds;

KeyError ReadKeep(const YamlNode& node, Config& config) {
  milliseconds value{};
  KeyError error = ReadDuration(node, std::chrono::hours(24), std::chrono::hours(24 * 3650), value);
  if (!error) {
    config.audit.keep = std::chrono::duration_cast<std::chrono::hours>(value);
  }
  return error;
}

KeyError ReadProgram(const YamlNode& node, std::vector<std::string>& program) {
  std::vector<std::string> words;
  if (KeyError error = ReadTextList(node, words)) {
    return error;
  }
  if (!words.empty() && words[0][0] != '/') {
    return std::string("wants a program by its whole path, such as [/usr/bin/systemctl, stop, x]");
  }
  program = std::move(words);
  return {};
}

KeyError ReadTimeout(const YamlNode& node, std::chrono::seconds& timeout) {
  milliseconds value{};
  KeyError error = ReadDuration(node, milliseconds(1000), milliseconds(600'000), value);
  if (!error) {
    timeout = std::chrono::duration_cast<std::chrono::seconds>(value);
  }
  return error;
}

KeyError ReadGatewayFiles(const YamlNode& node, Config& config) {
  std::vector<std::string> paths;
  if (KeyError error = ReadTextList(node, paths)) {
    return error;
  }
  for (size_t i = 0; i < paths.size(); ++i) {
    if (KeyError error = ReadPath(node.items[i], /*or_empty=*/false, paths[i])) {
      return fmt::format("has an item that {}", *error);
    }
  }
  config.incident.gateway_files = std::move(paths);
  return {};
}

}  // namespace

std::vector<KeySpec> RecordKeys() {
  return {
      {"audit.keep", "time", "90d",
       "Files of the record whose lines are all older are removed, and the record tells of it. 1d "
       "to 3650d.",
       ReadKeep},
      {"audit.anchor_syslog", "true or false", "false",
       "Sends each checkpoint of the record to syslog (facility authpriv), so that a copy can be "
       "kept where root of this host has no say.",
       [](const YamlNode& node, Config& c) { return ReadBool(node, c.audit.anchor_syslog); }},
      {"audit.anchor_command", "list of words", "[]",
       "Hands each checkpoint of the record to this program, as its last argument, such as "
       "`[/usr/local/bin/keep-elsewhere]`. Where several wait, the newest is handed over.",
       [](const YamlNode& node, Config& c) { return ReadProgram(node, c.audit.anchor_command); }},
      {"audit.anchor_timeout", "time", "10s", "How long that program may take. 1s to 10m.",
       [](const YamlNode& node, Config& c) { return ReadTimeout(node, c.audit.anchor_timeout); }},

      {"incident.stop_gateway", "list of words", "[]",
       "The program with its arguments that ends the gateway, for `creel incident open "
       "--stop-gateway` and `creel panic`, such as `[/usr/bin/systemctl, stop, openclaw]`.",
       [](const YamlNode& node, Config& c) { return ReadProgram(node, c.incident.stop_gateway); }},
      {"incident.stop_timeout", "time", "20s", "How long that program may take. 1s to 10m.",
       [](const YamlNode& node, Config& c) { return ReadTimeout(node, c.incident.stop_timeout); }},
      {"incident.gateway_files", "list of paths", "[]",
       "Files and folders of the gateway, such as its logs and transcripts, that are put into "
       "every bundle of evidence. Links in them are kept as links; one on the way to them is "
       "followed only where root and Creel's user alone may write.",
       ReadGatewayFiles},
      {"incident.max_bundle", "size", "4GiB",
       "The most that a bundle of evidence takes in, before it is compressed; what did not fit is "
       "told in it. 16MiB and up.",
       [](const YamlNode& node, Config& c) {
         return ReadSize(node, 16ull << 20, 16ull << 40, c.incident.max_bundle_bytes);
       }},
      {"incident.max_files", "number", "100000",
       "The most files of one sandbox that a bundle holds. 1000 to 10000000.",
       [](const YamlNode& node, Config& c) {
         uint64_t value = 0;
         KeyError error = ReadWhole(node, 1000, 10'000'000, value);
         if (!error) {
           c.incident.max_files = static_cast<uint32_t>(value);
         }
         return error;
       }},
  };
}

}  // namespace creel
