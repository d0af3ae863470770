#pragma once

#include <string>
#include <string_view>

#include "creel/shim/v1/process.pb.h"
#include "supervisor/base/status.h"

namespace creel {

// Whether a command can be what the kernel accepts; kInvalidArgument says what to do instead.
absl::Status CheckCommand(const shim::v1::CommandSpec& spec);

// A process id as a caller may choose it. An empty one is fine only where `may_be_empty`.
absl::Status CheckProcessId(std::string_view id, bool may_be_empty);

// One piece of input to a process.
absl::Status CheckInput(const shim::v1::ProcessInput& input);

// The command as a person wants to see it, bounded and printable.
std::string Summary(const shim::v1::CommandSpec& spec);

}  // namespace creel
