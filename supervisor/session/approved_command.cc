#include "supervisor/session/approved_command.h"

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/policy/tools.h"

namespace creel {
namespace {

// What the adapter for OpenClaw puts in front where the gateway has folders to add to the PATH
// (adapters/openclaw/lib/command.js).
constexpr std::string_view kPrependsPath =
    "export PATH=\"$CREEL_PREPEND_PATH:$PATH\"; unset CREEL_PREPEND_PATH; ";

constexpr size_t kShown = 1024;
constexpr size_t kMaxName = 64;
constexpr size_t kMaxNames = 512;

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

std::string CommandSha256(const shim::v1::CommandSpec& spec) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    spec.SerializeToCodedStream(&coded);
  }
  Sha256 digest;
  digest.Update(bytes);
  return Hex(digest.Finish());
}

std::string ParametersForOperator(std::string_view parameters) {
  std::string shown = Printable(parameters.substr(0, kShown), 4 * kShown);
  if (parameters.size() > kShown) {
    shown += fmt::format(" … and {} bytes more", parameters.size() - kShown);
  }
  return shown;
}

std::string CommandForOperator(const shim::v1::CommandSpec& spec) {
  std::string line = spec.shell();
  for (const std::string& word : spec.argv()) {
    line += line.empty() ? "" : " ";
    line += word;
  }
  std::string shown = ParametersForOperator(line);
  if (!spec.cwd().empty()) {
    shown += fmt::format(", in: {}", Printable(spec.cwd(), kMaxNames));
  }
  std::vector<std::string> names;
  for (const auto& [name, value] : spec.env()) {
    names.push_back(Printable(name, kMaxName));
  }
  std::sort(names.begin(), names.end());
  std::string list;
  size_t told = 0;
  while (told < names.size() && list.size() < kMaxNames) {
    list += (told == 0 ? "" : " ") + names[told];
    ++told;
  }
  if (!names.empty()) {
    shown += fmt::format(", env: {}", list);
  }
  if (told < names.size()) {
    shown += fmt::format(" and {} more", names.size() - told);
  }
  shown += spec.stdin() ? ", with input that is not shown" : "";
  return shown;
}

}  // namespace creel
