#include "agent-shim/files/remove.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "agent-shim/files/tree_walk.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

absl::Status RemovalError(int error, std::string_view path) {
  if (error == ENOTEMPTY || error == EEXIST) {
    return absl::FailedPreconditionError(
        fmt::format("{} is a directory that is not empty", Quoted(path)));
  }
  return PathError(error, "remove", path);
}

}  // namespace

absl::StatusOr<uint64_t> RemovePlace(const Place& place, std::string_view path, bool recursive,
                                     const Cancel& cancel) {
  if (place.name == ".") {
    return absl::FailedPreconditionError(
        fmt::format("{} is a root, or ends in a dot, and is not removed", Quoted(path)));
  }
  struct stat stat {};
  if (fstatat(place.dir.get(), place.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return PathError(errno, "remove", path);
  }
  if (!S_ISDIR(stat.st_mode)) {
    if (place.directory_wanted) {
      return PathError(ENOTDIR, "remove", path);
    }
    if (unlinkat(place.dir.get(), place.name.c_str(), 0) != 0) {
      return RemovalError(errno, path);
    }
    return 1;
  }
  uint64_t removed = 0;
  if (recursive) {
    ASSIGN_OR_RETURN(UniqueFd top, OpenDirectory(place.dir.get(), place.name, path));
    ASSIGN_OR_RETURN(TreeWalk walk,
                     TreeWalk::Start(std::move(top), {.removing = true, .with_paths = false}));
    while (true) {
      ASSIGN_OR_RETURN(const TreeWalk::Event event, walk.Next(cancel));
      if (event == TreeWalk::Event::kEnd) {
        break;
      }
      const TreeWalk::Entry& entry = walk.entry();
      const bool directory = S_ISDIR(entry.stat.st_mode);
      const auto here = [&] { return JoinPath(path, entry.path); };
      if (directory && event == TreeWalk::Event::kEntry) {
        // Empty ones go at once. What else cannot be removed is entered, or says why not.
        if (unlinkat(walk.dir_fd(), entry.name.c_str(), AT_REMOVEDIR) == 0) {
          ++removed;
          continue;
        }
        if (errno != ENOTEMPTY && errno != EEXIST) {
          return RemovalError(errno, here());
        }
        if (entry.stat.st_dev != stat.st_dev) {
          return absl::FailedPreconditionError(
              fmt::format("{} is on another file system", Quoted(here())));
        }
        RETURN_IF_ERROR(walk.Descend());
        continue;
      }
      if (unlinkat(walk.dir_fd(), entry.name.c_str(), directory ? AT_REMOVEDIR : 0) != 0) {
        if (errno == ENOENT) {
          continue;
        }
        return RemovalError(errno, here());
      }
      ++removed;
    }
  }
  if (unlinkat(place.dir.get(), place.name.c_str(), AT_REMOVEDIR) != 0) {
    return RemovalError(errno, path);
  }
  return removed + 1;
}

absl::StatusOr<uint64_t> Remove(const FileRoots& roots, const v1::RemoveArgs& args,
                                const Cancel& cancel) {
  absl::StatusOr<uint64_t> removed = [&]() -> absl::StatusOr<uint64_t> {
    ASSIGN_OR_RETURN(const Place place, roots.Resolve(args.path(), LastLink::kKeep));
    return RemovePlace(place, args.path(), args.recursive(), cancel);
  }();
  if (args.missing_ok() && absl::IsNotFound(removed.status())) {
    return 0;
  }
  return removed;
}

}  // namespace creel::shim
