#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include "supervisor/base/status.h"

namespace creel {

// A version of the engine's API, "1.41".
struct ApiVersion {
  int major = 0;
  int minor = 0;

  // Nothing if `text` is not two numbers with a dot between them.
  static std::optional<ApiVersion> Parse(std::string_view text);
  [[nodiscard]] std::string ToString() const;

  auto operator<=>(const ApiVersion&) const = default;
};

// What this room was written for. Newer engines refuse old versions and old ones new versions, so
// each call names one that both speak.
inline constexpr ApiVersion kOldestApi{1, 41};
inline constexpr ApiVersion kNewestApi{1, 52};

// The newest version that both sides speak. kFailedPrecondition, with both ranges in the message,
// if there is none.
absl::StatusOr<ApiVersion> NegotiateApi(ApiVersion engine_oldest, ApiVersion engine_newest);

}  // namespace creel
