#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace creel::shim {

// A glob: `*`, `?`, `[...]` within a name, `**` as a whole part for any number of directories, a
// backslash before what is meant literally. Matches a path part by part, so that a walk can leave
// out directories where nothing can match.
class GlobPattern {
 public:
  // Which positions of the pattern a directory's path may have reached; 0: none.
  using Progress = uint64_t;

  //   kInvalidArgument  empty, absolute, with `..`, an unclosed `[`, or more than 60 parts
  static absl::StatusOr<GlobPattern> Parse(std::string_view pattern, bool hidden);

  // Of the directory where the search starts.
  [[nodiscard]] Progress Start() const;
  // After one more name.
  [[nodiscard]] Progress Step(Progress progress, std::string_view name) const;
  // Whether the path so far matches.
  [[nodiscard]] bool Matches(Progress progress) const;
  // Whether anything below can match.
  [[nodiscard]] bool MayMatchBelow(Progress progress) const;

  // A whole path, parts joined by slashes. A pattern of one part matches by the last name alone,
  // as people mean it who write `*.py`.
  [[nodiscard]] bool MatchesPath(std::string_view path) const;

 private:
  [[nodiscard]] Progress Close(Progress progress) const;

  std::vector<std::string> parts_;
  bool hidden_ = false;
};

// Whether one name matches one part of a pattern. In time of the product of their lengths.
bool MatchesName(std::string_view pattern, std::string_view name);

}  // namespace creel::shim
