#pragma once

#include <string>
#include <vector>

#include "supervisor/cli/mcp/call.h"

namespace creel::cli::mcp {

// One tool: what `tools/list` says of it, and what it does. Arguments have been held against the
// schema when `run` is called; an error it returns is told to the model as the tool's own.
struct Tool {
  std::string name;
  std::string title;
  std::string description;
  Json schema;
  Json annotations;
  absl::StatusOr<ToolResult> (*run)(ToolCall& call);
};

// All tools, in the order in which they are listed.
const std::vector<Tool>& Tools();

// The parts, by subject.
std::vector<Tool> CommandTools();  // exec, process
std::vector<Tool> FileTools();     // read, write, edit
std::vector<Tool> SearchTools();   // ls, find, grep

// A schema written as text, with strictly the properties it lists. Our own text: it parses.
Json Schema(const char* text);

}  // namespace creel::cli::mcp
