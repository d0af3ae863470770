#include "agent-shim/files/roots.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr int kMaxLinks = 40;
constexpr int kDirectoryFlags = O_PATH | O_DIRECTORY | O_CLOEXEC;

absl::Status Outside(std::string_view path) {
  return absl::PermissionDeniedError(
      fmt::format("{} leads outside the sandbox's roots", Quoted(path)));
}

UniqueFd OpenRoot(const std::string& canonical) {
  UniqueFd fd(Openat2(AT_FDCWD, canonical.c_str(), kDirectoryFlags,
                      RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS));
  if (!fd.valid() && Openat2IsMissing(errno)) {
    UniqueFd top(open("/", kDirectoryFlags));
    fd.reset(OpenBeneath(top.get(), canonical.substr(1), kDirectoryFlags));
  }
  return fd;
}

std::string_view WithoutTrailingSlashes(std::string_view path) {
  while (!path.empty() && path.back() == '/') {
    path.remove_suffix(1);
  }
  return path;
}

std::string_view WithoutLeadingSlashes(std::string_view path) {
  while (!path.empty() && path.front() == '/') {
    path.remove_prefix(1);
  }
  return path;
}

}  // namespace

int OpenBeneath(int dir, const std::string& path, int flags) {
  const int fd = Openat2(dir, path.c_str(), flags | O_NOFOLLOW,
                         RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
  if (fd >= 0 || !Openat2IsMissing(errno)) {
    return fd;
  }
  const std::vector<std::string> parts = Components(path);
  UniqueFd at;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i] == "..") {
      errno = EXDEV;
      return -1;
    }
    const int from = at.valid() ? at.get() : dir;
    const bool last = i + 1 == parts.size();
    UniqueFd next(openat(from, parts[i].c_str(), (last ? flags : kDirectoryFlags) | O_NOFOLLOW));
    if (!next.valid()) {
      return -1;
    }
    at = std::move(next);
  }
  return parts.empty() ? openat(dir, ".", flags) : at.release();
}

// Resolves a path part by part, following links itself. A position is either below a root, with
// the directory open, or outside of all, where nothing is looked up: the way is merely noted until
// it enters a root or ends.
class Walk {
 public:
  Walk(const FileRoots& roots, std::string_view path, bool make_missing)
      : roots_(roots), path_(path), make_missing_(make_missing) {}

  absl::StatusOr<Place> Run(LastLink last) {
    if (path_.front() != '/') {
      RETURN_IF_ERROR(Enter(roots_.roots_.front()));
    }
    Push(path_);
    while (!pending_.empty()) {
      const std::string part = std::move(pending_.back());
      pending_.pop_back();
      if (part == "..") {
        RETURN_IF_ERROR(GoUp());
      } else if (root_ == nullptr) {
        outside_.push_back(part);
        RETURN_IF_ERROR(EnterIfRoot());
      } else if (pending_.empty() && last == LastLink::kKeep) {
        return Place{.dir = std::move(dir_), .name = part};
      } else {
        ASSIGN_OR_RETURN(const bool arrived, Step(part));
        if (arrived) {
          return Place{.dir = std::move(dir_), .name = part};
        }
      }
    }
    if (root_ == nullptr) {
      return Outside(path_);
    }
    return Place{.dir = std::move(dir_), .name = "."};
  }

 private:
  void Push(std::string_view path) {
    std::vector<std::string> parts = Components(path);
    pending_.insert(pending_.end(), std::make_move_iterator(parts.rbegin()),
                    std::make_move_iterator(parts.rend()));
  }

  absl::Status Error(int error) const { return PathError(error, "resolve", path_); }

  absl::Status Enter(const FileRoots::Root& root) {
    dir_ = OpenRoot(root.canonical);
    if (!dir_.valid()) {
      return Error(errno);
    }
    root_ = &root;
    names_.clear();
    outside_.clear();
    return absl::OkStatus();
  }

  absl::Status EnterIfRoot() {
    std::string here;
    for (const std::string& part : outside_) {
      here += "/" + part;
    }
    for (const FileRoots::Root& root : roots_.roots_) {
      if (here == root.name || here == root.canonical) {
        return Enter(root);
      }
    }
    return absl::OkStatus();
  }

  void Leave(std::vector<std::string> outside) {
    root_ = nullptr;
    dir_.reset();
    outside_ = std::move(outside);
  }

  absl::Status GoUp() {
    if (root_ == nullptr || names_.empty()) {
      std::vector<std::string> outside =
          root_ == nullptr ? std::move(outside_) : Components(root_->canonical);
      if (!outside.empty()) {
        outside.pop_back();
      }
      Leave(std::move(outside));
      return EnterIfRoot();
    }
    // Not by the kernel's `..`: a directory that was moved meanwhile would lead elsewhere.
    names_.pop_back();
    UniqueFd top = OpenRoot(root_->canonical);
    std::string below;
    for (const std::string& name : names_) {
      below = JoinPath(below, name);
    }
    if (top.valid()) {
      dir_.reset(below.empty() ? top.release() : OpenBeneath(top.get(), below, kDirectoryFlags));
    }
    return dir_.valid() ? absl::OkStatus() : Error(errno);
  }

  // Takes one part below a root. True if the path ends here: `part` in `dir_` is what it names.
  absl::StatusOr<bool> Step(const std::string& part) {
    const bool is_last = pending_.empty();
    UniqueFd fd(openat(dir_.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid() && errno == ENOENT) {
      if (is_last) {
        return true;
      }
      if (make_missing_) {
        RETURN_IF_ERROR(MakeDirectoryAt(dir_.get(), part, 0755, path_).status());
        fd.reset(openat(dir_.get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      }
    }
    struct stat stat {};
    if (!fd.valid() || fstat(fd.get(), &stat) != 0) {
      return Error(errno);
    }
    if (S_ISLNK(stat.st_mode)) {
      if (++links_ > kMaxLinks) {
        return Error(ELOOP);
      }
      const std::string target = ReadLink(fd.get(), "");
      if (target.empty()) {
        return Error(ENOENT);
      }
      Push(target);
      if (target.front() == '/') {
        Leave({});
      }
      return false;
    }
    if (is_last) {
      return true;
    }
    if (!S_ISDIR(stat.st_mode)) {
      return Error(ENOTDIR);
    }
    names_.push_back(part);
    dir_ = std::move(fd);
    return false;
  }

  const FileRoots& roots_;
  const std::string path_;
  const bool make_missing_;
  // The parts still to take, the next one at the back.
  std::vector<std::string> pending_;
  int links_ = 0;
  // Below a root: it, the way from it, and where that led. Null outside.
  const FileRoots::Root* root_ = nullptr;
  std::vector<std::string> names_;
  UniqueFd dir_;
  // Outside: the way from "/".
  std::vector<std::string> outside_;
};

absl::StatusOr<FileRoots> FileRoots::Open(const std::string& workspace,
                                          const std::vector<std::string>& extra_roots) {
  std::vector<std::string> names = {workspace};
  names.insert(names.end(), extra_roots.begin(), extra_roots.end());
  FileRoots roots;
  for (const std::string& given : names) {
    RETURN_IF_ERROR(CheckPath(given));
    const std::string name(WithoutTrailingSlashes(given));
    if (name.empty() || name.front() != '/') {
      return absl::InvalidArgumentError(
          fmt::format("{} is no absolute path below '/', so no root", Quoted(given)));
    }
    const std::unique_ptr<char, decltype(&std::free)> canonical(realpath(name.c_str(), nullptr),
                                                                &std::free);
    if (canonical == nullptr) {
      return PathError(errno, "find root", name);
    }
    if (!OpenRoot(canonical.get()).valid()) {
      return PathError(errno, "open root", name);
    }
    roots.roots_.push_back({.name = name, .canonical = canonical.get()});
  }
  return roots;
}

const FileRoots::Root* FileRoots::FindRoot(std::string_view path, std::string_view* rest) const {
  if (path.front() != '/') {
    *rest = path;
    return &roots_.front();
  }
  const Root* found = nullptr;
  size_t longest = 0;
  for (const Root& root : roots_) {
    for (const std::string& name : {root.name, root.canonical}) {
      const bool below = path.substr(0, name.size()) == name &&
                         (path.size() == name.size() || path[name.size()] == '/');
      if (below && name.size() > longest) {
        found = &root;
        longest = name.size();
      }
    }
  }
  *rest = path.substr(longest);
  return found;
}

absl::StatusOr<Place> FileRoots::Resolve(std::string_view path, LastLink last) const {
  RETURN_IF_ERROR(CheckPath(path));
  const bool slash = path.back() == '/';
  const auto walk = [&]() -> absl::StatusOr<Place> {
    ASSIGN_OR_RETURN(Place place, Walk(*this, path, /*make_missing=*/false).Run(last));
    place.directory_wanted = slash;
    return place;
  };
  // Mostly no link is in the way, and one call opens the directory; all else takes the walk.
  std::string_view rest;
  const Root* root = FindRoot(path, &rest);
  if (root == nullptr) {
    return walk();
  }
  rest = WithoutLeadingSlashes(WithoutTrailingSlashes(rest));
  const size_t cut = rest.rfind('/');
  Place place{.name = std::string(cut == std::string_view::npos ? rest : rest.substr(cut + 1)),
              .directory_wanted = slash};
  std::string above(cut == std::string_view::npos ? "" : rest.substr(0, cut));
  if (place.name.empty() || place.name == "." || place.name == "..") {
    above = rest;
    place.name = ".";
  }
  place.dir = OpenRoot(root->canonical);
  if (!place.dir.valid()) {
    return PathError(errno, "open root", root->name);
  }
  if (!above.empty()) {
    place.dir.reset(Openat2(place.dir.get(), above.c_str(), kDirectoryFlags,
                            RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS));
    if (!place.dir.valid()) {
      const bool retry = errno == EXDEV || errno == ELOOP || errno == EAGAIN;
      return retry || Openat2IsMissing(errno) ? walk() : PathError(errno, "resolve", path);
    }
  }
  if (last == LastLink::kFollow && place.name != ".") {
    struct stat stat {};
    const bool there =
        fstatat(place.dir.get(), place.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && S_ISLNK(stat.st_mode)) {
      return walk();
    }
    if (!there && errno != ENOENT) {
      return PathError(errno, "resolve", path);
    }
  }
  return place;
}

absl::StatusOr<Place> FileRoots::ResolveMakingParents(std::string_view path, LastLink last) const {
  absl::StatusOr<Place> place = Resolve(path, last);
  if (!absl::IsNotFound(place.status())) {
    return place;
  }
  ASSIGN_OR_RETURN(Place made, Walk(*this, path, /*make_missing=*/true).Run(last));
  made.directory_wanted = path.back() == '/';
  return made;
}

std::string FileRoots::NameOf(std::string_view path) const {
  std::vector<std::string> parts = Components(path);
  if (parts.empty() && path.substr(0, 1) != "/") {
    parts = Components(roots_.front().name);
  }
  return parts.empty() || parts.back() == ".." ? "files" : parts.back();
}

}  // namespace creel::shim
