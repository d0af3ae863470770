#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "creel/gateway/v1/gateway.pb.h"
#include "supervisor/base/escape.h"
#include "supervisor/session/call_gate.h"

namespace creel {

// A tool call for the gate. `summary` is what a person wants to see of its parameters.
inline ToolCall MakeToolCall(const gateway::v1::CallContext& context, std::string tool,
                             std::string_view summary) {
  constexpr size_t kMaxSummary = 256;
  return {.session = context.session(),
          .sender = context.sender(),
          .tool = std::move(tool),
          .summary = Printable(summary, kMaxSummary),
          .tool_call_id = context.tool_call_id()};
}

}  // namespace creel
