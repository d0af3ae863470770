#include "supervisor/session/approved_command.h"

#include <nlohmann/json.hpp>

#include "supervisor/policy/tools.h"

namespace creel {
namespace {

// What the adapter for OpenClaw puts in front where the gateway has folders to add to the PATH
// (adapters/openclaw/lib/command.js).
constexpr std::string_view kPrependsPath =
    "export PATH=\"$CREEL_PREPEND_PATH:$PATH\"; unset CREEL_PREPEND_PATH; ";

}  // namespace

std::string LineOfParameters(std::string_view tool, std::string_view parameters) {
  if (DescribeTool(tool).name != "exec") {
    return {};
  }
  const nlohmann::json parsed = nlohmann::json::parse(parameters, nullptr, false);
  if (!parsed.is_object()) {
    return {};
  }
  const auto command = parsed.find("command");
  return command != parsed.end() && command->is_string() ? command->get<std::string>()
                                                         : std::string();
}

std::string_view ShellLine(const shim::v1::CommandSpec& spec) {
  std::string_view line = spec.shell();
  if (spec.argv_size() == 3 && (spec.argv(0) == "/bin/sh" || spec.argv(0) == "sh") &&
      spec.argv(1) == "-c") {
    line = spec.argv(2);
  }
  if (line.starts_with(kPrependsPath)) {
    line.remove_prefix(kPrependsPath.size());
  }
  return line;
}

}  // namespace creel
