#include "supervisor/api/command_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdint>

#include "supervisor/base/escape.h"

namespace creel {
namespace {

// The kernel's bounds on one string and on all of them, given to exec.
constexpr size_t kMaxString = 131'071;
constexpr size_t kMaxStrings = 2u << 20;
constexpr size_t kMaxPath = 4095;
constexpr size_t kMaxInput = 1u << 20;
constexpr size_t kMaxSummary = 256;
constexpr int64_t kMaxTimeoutSeconds = 366LL * 24 * 3600;
constexpr int64_t kMaxGraceSeconds = 3600;
constexpr uint32_t kMaxTerminal = 10'000;
constexpr int kMaxSignal = 64;

absl::Status Invalid(const std::string& message) { return absl::InvalidArgumentError(message); }

bool HasNul(std::string_view text) { return text.find('\0') != std::string_view::npos; }

absl::Status CheckString(std::string_view text, const std::string& name) {
  if (HasNul(text)) {
    return Invalid(fmt::format("{} holds a NUL byte, which no program can be given", name));
  }
  if (text.size() > kMaxString) {
    return Invalid(fmt::format(
        "{} has {} bytes and the kernel takes at most {}; write it to a file, or send it as stdin",
        name, text.size(), kMaxString));
  }
  return absl::OkStatus();
}

absl::Status CheckDuration(const google::protobuf::Duration& duration, int64_t max_seconds,
                           std::string_view name) {
  const bool negative = duration.seconds() < 0 || duration.nanos() < 0;
  if (negative || duration.nanos() > 999'999'999 || duration.seconds() > max_seconds) {
    return Invalid(fmt::format("{} must lie between 0 and {} seconds", name, max_seconds));
  }
  return absl::OkStatus();
}

absl::Status CheckTerminal(const shim::v1::TerminalSize& size) {
  if (size.rows() > kMaxTerminal || size.columns() > kMaxTerminal) {
    return Invalid(fmt::format("a terminal has at most {} rows and columns", kMaxTerminal));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckCommand(const shim::v1::CommandSpec& spec) {
  if (spec.argv().empty() && spec.shell().empty()) {
    return Invalid("the command is empty; set `argv`, or `shell` for a line of shell");
  }
  if (!spec.argv().empty() && !spec.shell().empty()) {
    return Invalid("the command has both `argv` and `shell`; set one of them");
  }
  if (!spec.argv().empty() && spec.argv(0).empty()) {
    return Invalid("argv[0] is empty; it names the program");
  }
  size_t total = 0;
  for (int i = 0; i < spec.argv_size(); ++i) {
    RETURN_IF_ERROR(CheckString(spec.argv(i), fmt::format("argv[{}]", i)));
    total += spec.argv(i).size() + 1;
  }
  RETURN_IF_ERROR(CheckString(spec.shell(), "the shell line"));
  total += spec.shell().size();
  for (const auto& [name, value] : spec.env()) {
    if (name.empty() || name.find('=') != std::string::npos || HasNul(name)) {
      return Invalid(
          fmt::format("'{}' is no name for a variable; it must be there and hold neither "
                      "'=' nor NUL",
                      Printable(name, 64)));
    }
    RETURN_IF_ERROR(CheckString(value, fmt::format("the variable '{}'", Printable(name, 64))));
    if (name.size() + value.size() + 1 > kMaxString) {
      return Invalid(
          fmt::format("the variable '{}' has {} bytes and the kernel takes at most {}; "
                      "write it to a file",
                      Printable(name, 64), name.size() + value.size() + 1, kMaxString));
    }
    total += name.size() + value.size() + 2;
  }
  if (total > kMaxStrings) {
    return Invalid(
        fmt::format("arguments and variables have {} bytes in all and the kernel takes "
                    "at most {}; write them to a file, or send them as stdin",
                    total, kMaxStrings));
  }
  if (HasNul(spec.cwd()) || spec.cwd().size() > kMaxPath) {
    return Invalid(fmt::format("`cwd` holds a NUL byte or more than {} bytes", kMaxPath));
  }
  RETURN_IF_ERROR(CheckDuration(spec.timeout(), kMaxTimeoutSeconds, "`timeout`"));
  RETURN_IF_ERROR(CheckDuration(spec.grace(), kMaxGraceSeconds, "`grace`"));
  if (!shim::v1::Overflow_IsValid(spec.overflow())) {
    return Invalid("`overflow` is none that this version knows");
  }
  return CheckTerminal(spec.terminal());
}

absl::Status CheckProcessId(std::string_view id, bool may_be_empty) {
  if (id.empty() && !may_be_empty) {
    return Invalid("`process_id` is empty; ListProcesses tells them");
  }
  const bool well_formed =
      id.size() <= 64 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
        return (c < 0x80 && std::isalnum(c) != 0) || c == '-' || c == '_';
      });
  if (!well_formed) {
    return Invalid("`process_id` may have at most 64 letters, digits, `-` and `_`");
  }
  return absl::OkStatus();
}

absl::Status CheckInput(const shim::v1::ProcessInput& input) {
  switch (input.input_case()) {
    case shim::v1::ProcessInput::kStdin:
      if (input.stdin().size() > kMaxInput) {
        return Invalid("one piece of input has at most 1 MiB; send more pieces");
      }
      return absl::OkStatus();
    case shim::v1::ProcessInput::kCloseStdin:
      return absl::OkStatus();
    case shim::v1::ProcessInput::kResize:
      return CheckTerminal(input.resize());
    case shim::v1::ProcessInput::kSignal:
      if (input.signal() < 1 || input.signal() > kMaxSignal) {
        return Invalid(fmt::format("{} is no signal; they go from 1 to 64", input.signal()));
      }
      return absl::OkStatus();
    case shim::v1::ProcessInput::kStop:
      return CheckDuration(input.stop().grace(), kMaxGraceSeconds, "`grace`");
    case shim::v1::ProcessInput::INPUT_NOT_SET:
      break;
  }
  return Invalid("the input holds nothing that this version knows");
}

std::string Summary(const shim::v1::CommandSpec& spec) {
  if (!spec.shell().empty()) {
    return Printable(std::string_view(spec.shell()).substr(0, kMaxSummary + 1), kMaxSummary);
  }
  std::string line;
  for (const std::string& word : spec.argv()) {
    line += line.empty() ? "" : " ";
    line += std::string_view(word).substr(0, kMaxSummary + 1);
    if (line.size() > kMaxSummary) {
      break;
    }
  }
  return Printable(line, kMaxSummary);
}

}  // namespace creel
