#include "supervisor/engine/api_version.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <system_error>

namespace creel {
namespace {

std::optional<int> Number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    return std::nullopt;
  }
  return value;
}

}  // namespace

std::optional<ApiVersion> ApiVersion::Parse(std::string_view text) {
  const size_t dot = text.find('.');
  if (dot == std::string_view::npos) {
    return std::nullopt;
  }
  const std::optional<int> major = Number(text.substr(0, dot));
  const std::optional<int> minor = Number(text.substr(dot + 1));
  if (!major || !minor) {
    return std::nullopt;
  }
  return ApiVersion{*major, *minor};
}

std::string ApiVersion::ToString() const { return fmt::format("{}.{}", major, minor); }

absl::StatusOr<ApiVersion> NegotiateApi(ApiVersion engine_oldest, ApiVersion engine_newest) {
  const ApiVersion newest = std::min(engine_newest, kNewestApi);
  if (newest >= std::max(engine_oldest, kOldestApi)) {
    return newest;
  }
  return absl::FailedPreconditionError(fmt::format(
      "the engine speaks API {} to {} and Creel {} to {}: {}", engine_oldest.ToString(),
      engine_newest.ToString(), kOldestApi.ToString(), kNewestApi.ToString(),
      engine_newest < kOldestApi ? "the engine is too old, Docker 20.10 is the first that will do"
                                 : "the engine is too new, Creel must be updated"));
}

}  // namespace creel
