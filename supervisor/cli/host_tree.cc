#include "supervisor/cli/host_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "supervisor/base/crypto.h"

namespace creel::cli {
namespace {

constexpr int kOpenDirectory = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

absl::StatusOr<std::vector<std::string>> Parts(const std::string& path) {
  std::vector<std::string> parts;
  size_t from = 0;
  while (from <= path.size() && !path.empty()) {
    const size_t slash = std::min(path.find('/', from), path.size());
    const std::string part = path.substr(from, slash - from);
    if (part.empty() || part == "." || part == "..") {
      return absl::InvalidArgumentError(
          fmt::format("the sandbox names a file '{}', which could lead elsewhere; nothing was "
                      "copied",
                      path));
    }
    parts.push_back(part);
    from = slash + 1;
  }
  return parts;
}

// Whether a link to `target`, in a folder so many levels below the root, stays below that root: it
// may go up only at its beginning, where the folders it leaves are real ones, and no further than
// the root. After a name that is itself a link, `..` could lead anywhere.
bool StaysInside(size_t depth, const std::string& target) {
  if (target.empty() || target.starts_with('/')) {
    return false;
  }
  bool named = false;
  for (const std::filesystem::path& part : std::filesystem::path(target)) {
    if (part == "..") {
      if (named || depth == 0) {
        return false;
      }
      --depth;
    } else if (part != "." && !part.empty()) {
      named = true;
    }
  }
  return true;
}

absl::Status RemoveBelow(int folder, const std::string& name) {
  UniqueFd fd(openat(folder, name.c_str(), kOpenDirectory));
  if (fd.valid()) {
    const int listed = dup(fd.get());
    const std::unique_ptr<DIR, CloseDir> dir(fdopendir(listed));
    while (const dirent* const each = dir ? readdir(dir.get()) : nullptr) {
      const std::string child = each->d_name;
      if (child != "." && child != "..") {
        RETURN_IF_ERROR(RemoveBelow(fd.get(), child));
      }
    }
  }
  if (unlinkat(folder, name.c_str(), fd.valid() ? AT_REMOVEDIR : 0) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, fmt::format("remove '{}'", name));
  }
  return absl::OkStatus();
}

absl::Status WalkBelow(int folder, const std::string& name, const std::string& path,
                       const std::function<absl::Status(HostEntry)>& visit) {
  struct stat info {};
  if (fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return ErrnoStatus(errno, fmt::format("stat '{}'", name));
  }
  HostEntry entry;
  entry.path = path;
  entry.mode = info.st_mode & 0777;
  if (S_ISREG(info.st_mode)) {
    entry.file.reset(openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!entry.file.valid()) {
      return ErrnoStatus(errno, fmt::format("open '{}'", name));
    }
    return visit(std::move(entry));
  }
  if (!S_ISDIR(info.st_mode)) {
    entry.kind = S_ISLNK(info.st_mode) ? HostEntry::Kind::kLink : HostEntry::Kind::kOther;
    return visit(std::move(entry));
  }
  entry.kind = HostEntry::Kind::kDirectory;
  RETURN_IF_ERROR(visit(std::move(entry)));
  const UniqueFd fd(openat(folder, name.c_str(), kOpenDirectory));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", name));
  }
  const std::unique_ptr<DIR, CloseDir> dir(fdopendir(dup(fd.get())));
  while (const dirent* const each = dir ? readdir(dir.get()) : nullptr) {
    const std::string child = each->d_name;
    if (child != "." && child != "..") {
      RETURN_IF_ERROR(WalkBelow(fd.get(), child, path.empty() ? child : path + "/" + child, visit));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NewTree> NewTree::Begin(const std::string& destination, const std::string& name) {
  std::error_code ignored;
  std::filesystem::path place(destination);
  if (std::filesystem::is_directory(place, ignored)) {
    place /= name;
  }
  if (!place.has_filename()) {
    place = place.parent_path();
  }
  NewTree tree;
  tree.final_name_ = place.filename().string();
  tree.place_ = place.string();
  const std::string parent = place.has_parent_path() ? place.parent_path().string() : ".";
  // The parent is the operator's own choice, links in it included.
  tree.folder_.reset(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!tree.folder_.valid()) {
    return ErrnoStatus(errno, fmt::format("open the folder '{}'", parent));
  }
  if (tree.final_name_.empty() || tree.final_name_ == "." || tree.final_name_ == "..") {
    return absl::InvalidArgumentError(fmt::format("'{}' names no file to make", destination));
  }
  tree.temporary_ = ".creel-" + Hex(RandomBytes(8));
  return tree;
}

NewTree::~NewTree() {
  if (folder_.valid() && !temporary_.empty()) {
    static_cast<void>(RemoveBelow(folder_.get(), temporary_));
  }
}

absl::StatusOr<UniqueFd> NewTree::ParentOf(const std::string& path, std::string* last) const {
  ASSIGN_OR_RETURN(std::vector<std::string> parts, Parts(path));
  UniqueFd fd(dup(folder_.get()));
  *last = temporary_;
  for (const std::string& part : parts) {
    UniqueFd next(openat(fd.get(), last->c_str(), kOpenDirectory));
    if (!next.valid()) {
      return ErrnoStatus(errno, fmt::format("open '{}' of the copy", *last));
    }
    fd = std::move(next);
    *last = part;
  }
  return fd;
}

absl::Status NewTree::MakeDirectory(const std::string& path, uint32_t mode) {
  std::string last;
  ASSIGN_OR_RETURN(const UniqueFd parent, ParentOf(path, &last));
  if (mkdirat(parent.get(), last.c_str(), (mode & 0777) | 0700) != 0) {
    return ErrnoStatus(errno, fmt::format("make the folder '{}'", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> NewTree::MakeFile(const std::string& path, uint32_t mode) {
  std::string last;
  ASSIGN_OR_RETURN(const UniqueFd parent, ParentOf(path, &last));
  UniqueFd fd(openat(parent.get(), last.c_str(),
                     O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0777));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("make the file '{}'", path));
  }
  return fd;
}

absl::Status NewTree::MakeLink(const std::string& path, const std::string& target) {
  ASSIGN_OR_RETURN(const std::vector<std::string> parts, Parts(path));
  if (parts.empty()) {
    return absl::InvalidArgumentError("the sandbox names a link without a name; nothing was copied");
  }
  if (StaysInside(parts.size() - 1, target)) {
    links_.emplace_back(path, target);
  } else {
    ++links_left_out_;
  }
  return absl::OkStatus();
}

absl::Status NewTree::Finish() {
  for (const auto& [path, target] : links_) {
    std::string last;
    ASSIGN_OR_RETURN(const UniqueFd parent, ParentOf(path, &last));
    if (symlinkat(target.c_str(), parent.get(), last.c_str()) != 0) {
      return ErrnoStatus(errno, fmt::format("make the link '{}'", path));
    }
  }
  if (renameat(folder_.get(), temporary_.c_str(), folder_.get(), final_name_.c_str()) != 0) {
    if (errno == EISDIR || errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR) {
      return absl::AlreadyExistsError(
          fmt::format("'{}' is there already and is not replaced; move it away or choose another "
                      "name",
                      place_));
    }
    return ErrnoStatus(errno, fmt::format("put '{}' in its place", place_));
  }
  temporary_.clear();
  return absl::OkStatus();
}

absl::Status WalkHost(const std::string& root,
                      const std::function<absl::Status(HostEntry)>& visit) {
  // The root is the operator's own choice: a link to it is followed.
  const std::unique_ptr<char, decltype(&free)> real(realpath(root.c_str(), nullptr), &free);
  if (real == nullptr) {
    return ErrnoStatus(errno, fmt::format("open '{}'", root));
  }
  return WalkBelow(AT_FDCWD, real.get(), "", visit);
}

}  // namespace creel::cli
