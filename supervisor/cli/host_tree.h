#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel::cli {

// Something new on the host, built beside its place under a name of its own and put there when it
// is complete. What comes from a sandbox is named by the sandbox: names are checked, nothing that
// is there is written through, links are made last and never followed, and none that leads out of
// the new thing is made at all. Removed again if not finished.
class NewTree {
 public:
  // `destination` is a path of the host; if it is a directory, the new thing goes into it as
  // `name`. kNotFound: its parent is missing.
  static absl::StatusOr<NewTree> Begin(const std::string& destination, const std::string& name);
  NewTree(NewTree&&) = default;
  NewTree& operator=(NewTree&&) = delete;
  ~NewTree();

  // Relative paths inside the new thing; empty: the thing itself. kInvalidArgument: a path that is
  // absolute or holds `..` or an empty part.
  absl::Status MakeDirectory(const std::string& path, uint32_t mode);
  // The descriptor to write the new file to. Set-id bits are left out of `mode`.
  absl::StatusOr<UniqueFd> MakeFile(const std::string& path, uint32_t mode);
  // Left out, and counted, if it could lead outside.
  absl::Status MakeLink(const std::string& path, const std::string& target);
  [[nodiscard]] uint64_t links_left_out() const { return links_left_out_; }
  // Puts it in its place; a file there is replaced, a directory is not (kAlreadyExists).
  absl::Status Finish();
  [[nodiscard]] const std::string& place() const { return place_; }

 private:
  NewTree() = default;
  absl::StatusOr<UniqueFd> ParentOf(const std::string& path, std::string* last) const;

  UniqueFd folder_;        // where the new thing goes
  std::string temporary_;  // its name until then
  std::string final_name_;
  std::string place_;
  std::vector<std::pair<std::string, std::string>> links_;
  uint64_t links_left_out_ = 0;
};

// One thing of a host tree, `path` relative to the root, parents first; links are not followed.
struct HostEntry {
  enum class Kind { kFile, kDirectory, kLink, kOther };
  Kind kind = Kind::kFile;
  std::string path;
  uint32_t mode = 0;
  UniqueFd file;  // open for reading, for kFile
};

// Calls `visit` for everything at and below `root`; stops at its first error.
absl::Status WalkHost(const std::string& root, const std::function<absl::Status(HostEntry)>& visit);

}  // namespace creel::cli
