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

// All that makes a command what it is: program, arguments, variables, folder and so on. Hex.
std::string CommandSha256(const shim::v1::CommandSpec& spec);

// What the operator is to see of a command: 1 KiB of it, how much there is besides, its folder, the
// names of its variables, and whether it gets input. Printable.
std::string CommandForOperator(const shim::v1::CommandSpec& spec);

// The same for a gateway's parameters, as far as they go.
std::string ParametersForOperator(std::string_view parameters);

}  // namespace creel
