#include "supervisor/api/trace.h"

#include <algorithm>
#include <string_view>

namespace creel {
namespace {

// `version-traceid-parentid-flags`, in lower-case hexadecimal.
constexpr size_t kLength = 55;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

}  // namespace

std::string TraceparentOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  if (metadata.count("traceparent") != 1) {
    return {};
  }
  const grpc::string_ref value = metadata.find("traceparent")->second;
  const std::string_view text(value.data(), value.size());
  if (text.size() != kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') {
    return {};
  }
  const std::string_view trace = text.substr(3, 32);
  const std::string_view parent = text.substr(36, 16);
  const bool good = IsHex(text.substr(0, 2)) && text.substr(0, 2) != "ff" && IsHex(trace) &&
                    !IsZero(trace) && IsHex(parent) && !IsZero(parent) && IsHex(text.substr(53));
  return good ? std::string(text) : std::string();
}

}  // namespace creel
