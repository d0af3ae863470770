#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// One path, resolved: the directory it lies in, held open, and its last part. Whoever acts on
// `name` in `dir` without following links cannot be led elsewhere by renames.
struct Place {
  // An O_PATH descriptor.
  UniqueFd dir = {};
  // One component; "." if the path is a root, or ends in `.` or `..`.
  std::string name = {};
  // The path ended in a slash: only a directory will do. Which the caller sees to.
  bool directory_wanted = false;
};

enum class LastLink { kFollow, kKeep };

// The directories that file calls may reach. Immutable, thread-safe.
class FileRoots {
 public:
  // `workspace` is the first root and the place where relative paths start. All must be absolute,
  // existing directories; links in them are resolved here, once.
  static absl::StatusOr<FileRoots> Open(const std::string& workspace,
                                        const std::vector<std::string>& extra_roots);

  // Finds `path` as the kernel would for a process that stands in the workspace, links included,
  // as long as no step lies outside all roots. With kFollow the last part is followed as well if
  // it is a link; what the returned place names is then no link, or nothing.
  // Runs with the caller's identity: call it on a thread that became the tool.
  //   kInvalidArgument     empty, NUL, too long
  //   kPermissionDenied    leads outside the roots, or may not be searched
  //   kNotFound            a directory on the way does not exist
  //   kFailedPrecondition  a part on the way is no directory, or too many links
  [[nodiscard]] absl::StatusOr<Place> Resolve(std::string_view path, LastLink last) const;

  // As Resolve, and makes the missing directories above the last part (mode 0755).
  [[nodiscard]] absl::StatusOr<Place> ResolveMakingParents(std::string_view path,
                                                           LastLink last) const;

  // The last part of `path` as people know it: for a root its own name.
  [[nodiscard]] std::string NameOf(std::string_view path) const;

  [[nodiscard]] const std::string& workspace() const { return roots_.front().name; }

 private:
  struct Root {
    // As it was given, and with links resolved; both normal and without trailing slash.
    std::string name;
    std::string canonical;
  };
  friend class Walk;

  // The root at the front of `path`, and what follows it. Null if there is none.
  [[nodiscard]] const Root* FindRoot(std::string_view path, std::string_view* rest) const;

  std::vector<Root> roots_;
};

// Opens `path`, plain names joined by slashes, below `dir` without following any link.
// Returns -1 with errno set on failure.
int OpenBeneath(int dir, const std::string& path, int flags);

}  // namespace creel::shim
