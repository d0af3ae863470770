#pragma once

#include <string>
#include <string_view>

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"

namespace creel {

// Where the tool calls of a session run, and by which rule.
struct Placement {
  bool sandboxed = true;
  std::string rule;  // stable, such as `placement.non-main`
  // Names the sandbox: sessions with the same name share one (sandbox.scope).
  std::string sandbox_name;
};

// kInvalidArgument unless `session` is 1 to 512 bytes of UTF-8 without control characters.
absl::Status CheckSessionKey(std::string_view session);
// The same for a sender, which may also be empty.
absl::Status CheckSender(std::string_view sender);

// Whether the key is an agent's main session, the owner's own: `agent:ID:main`.
bool IsMainSession(std::string_view session);

// Pure: facts in, placement out. `session` has passed CheckSessionKey.
Placement Place(const SandboxConfig& config, std::string_view session);

// The refusal for a session that is not sandboxed: kFailedPrecondition that says by which rule the
// gateway has to run it on the host.
absl::Status RunsOnHost(const Placement& placement, std::string_view session);

}  // namespace creel
