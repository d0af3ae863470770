#include "supervisor/cli/mcp/tools.h"

#include <iterator>

namespace creel::cli::mcp {

Json Schema(const char* text) {
  Json schema = Json::parse(text);
  schema["type"] = "object";
  schema["additionalProperties"] = false;
  return schema;
}

const std::vector<Tool>& Tools() {
  static const std::vector<Tool>& tools = *[] {
    auto* all = new std::vector<Tool>(CommandTools());
    for (auto part : {FileTools(), SearchTools()}) {
      std::move(part.begin(), part.end(), std::back_inserter(*all));
    }
    return all;
  }();
  return tools;
}

}  // namespace creel::cli::mcp
