#pragma once

#include <string>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/sandbox/host_abilities.h"

namespace creel {

// What in OpenClaw's own configuration (JSON5) lets a tool run outside of Creel's sandboxes, or a
// message into a conversation that is not its sender's. One finding each; a single good one if
// there is nothing. Touches no file. Errors (kInvalidArgument): `text` is no JSON5; the message
// names `file`, line and column.
absl::StatusOr<std::vector<Finding>> CheckGatewayConfig(const std::string& text,
                                                        const std::string& file);

}  // namespace creel
