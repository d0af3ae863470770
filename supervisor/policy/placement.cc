#include "supervisor/policy/placement.h"

#include <fmt/format.h>

#include "supervisor/base/escape.h"
#include "supervisor/config/text.h"

namespace creel {
namespace {

constexpr size_t kMaxName = 512;

absl::Status CheckName(std::string_view name, std::string_view what) {
  if (name.size() > kMaxName) {
    return absl::InvalidArgumentError(
        fmt::format("the {} has {} bytes; at most {} are accepted", what, name.size(), kMaxName));
  }
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return absl::InvalidArgumentError(
          fmt::format("the {} '{}' holds control characters", what, Printable(name, 120)));
    }
  }
  if (!IsValidUtf8(name)) {
    return absl::InvalidArgumentError(
        fmt::format("the {} '{}' is not UTF-8", what, Printable(name, 120)));
  }
  return absl::OkStatus();
}

// The agent's id in `agent:ID:REST`; empty if the key has another form.
std::string_view AgentOf(std::string_view session) {
  constexpr std::string_view kPrefix = "agent:";
  if (!session.starts_with(kPrefix)) {
    return {};
  }
  session.remove_prefix(kPrefix.size());
  const size_t colon = session.find(':');
  return colon == std::string_view::npos ? std::string_view{} : session.substr(0, colon);
}

}  // namespace

absl::Status CheckSessionKey(std::string_view session) {
  if (session.empty()) {
    return absl::InvalidArgumentError("the session key is empty; every call names its session");
  }
  return CheckName(session, "session key");
}

absl::Status CheckSender(std::string_view sender) { return CheckName(sender, "sender"); }

bool IsMainSession(std::string_view session) {
  const std::string_view agent = AgentOf(session);
  return !agent.empty() && session == fmt::format("agent:{}:main", agent);
}

Placement Place(const SandboxConfig& config, std::string_view session) {
  Placement placement;
  switch (config.mode) {
    case SandboxMode::kOff:
      placement.sandboxed = false;
      placement.rule = "placement.off";
      break;
    case SandboxMode::kNonMain:
      placement.sandboxed = !IsMainSession(session);
      placement.rule = placement.sandboxed ? "placement.non-main" : "placement.main";
      break;
    case SandboxMode::kAll:
      placement.rule = "placement.all";
      break;
  }
  placement.sandbox_name = std::string(session);
  if (config.scope == SandboxScope::kShared) {
    placement.sandbox_name = "*";
  } else if (config.scope == SandboxScope::kAgent && !AgentOf(session).empty()) {
    // A key of another form shares with nobody.
    placement.sandbox_name = fmt::format("agent:{}:*", AgentOf(session));
  }
  return placement;
}

absl::Status RunsOnHost(const Placement& placement, std::string_view session) {
  const bool off = placement.rule == "placement.off";
  return absl::FailedPreconditionError(fmt::format(
      "session '{}' runs on the host by policy ({}: {}); the gateway runs its tools itself. To put "
      "it in a sandbox, set {}",
      Printable(session, 120), placement.rule,
      off ? "sandbox.mode is off" : "it is the owner's main session",
      off ? "sandbox.mode to non-main or all" : "sandbox.mode to all"));
}

}  // namespace creel
