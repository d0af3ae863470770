#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// A new content for a file, collected under a temporary name in the same directory and renamed
// over it at the end, so that a reader sees the old content or the new and never a part. Removes
// the temporary file unless committed; for that its destructor must run with the tool's identity.
class ReplacementFile {
 public:
  // `dir` is duplicated. `mode` holds whatever the umask says.
  static absl::StatusOr<ReplacementFile> Create(int dir, mode_t mode, std::string_view path);
  ReplacementFile(ReplacementFile&& other) noexcept;
  ReplacementFile& operator=(ReplacementFile&& other) = delete;
  ~ReplacementFile();

  [[nodiscard]] int fd() const { return fd_.get(); }
  absl::Status Write(std::string_view data);
  // Puts it in place as `name`. With `no_replace`: kAlreadyExists if anything is there.
  absl::Status Commit(const std::string& name, bool no_replace);
  // What became of it.
  [[nodiscard]] absl::StatusOr<struct stat> Stat() const;

 private:
  ReplacementFile(UniqueFd dir, std::string_view path) : dir_(std::move(dir)), path_(path) {}

  UniqueFd dir_;
  // For messages.
  std::string path_;
  UniqueFd fd_;
  // Empty once there is nothing to remove.
  std::string temporary_;
};

// Whether two looks at a file saw the same, unchanged content.
bool SameContent(const struct stat& a, const struct stat& b);

// Whether the tool may write the file `name` in `dir`. A replacement needs
// only the directory, but a write must not get round a read-only file.
bool WritableByUs(int dir, const std::string& name);

}  // namespace creel::shim
