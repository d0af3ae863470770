#pragma once

#include <string>
#include <string_view>

#include "creel/shim/v1/process.pb.h"

namespace creel {

// The line that a gateway's call of a tool asks to have run: `command` of its parameters. Empty:
// the tool is not `exec`, or the parameters hold none.
std::string LineOfParameters(std::string_view tool, std::string_view parameters);

// The line of shell that a command is, as the gateways' adapters start one. Empty: it is none.
std::string_view ShellLine(const shim::v1::CommandSpec& spec);

}  // namespace creel
