#include "agent-shim/files/entries.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "agent-shim/files/copy.h"
#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "agent-shim/files/remove.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr mode_t kDefaultMode = 0755;
constexpr mode_t kUmask = 022;

}  // namespace

absl::StatusOr<v1::FileInfo> Stat(const FileRoots& roots, const v1::StatArgs& args) {
  // A slash at the end asks for the directory that a link leads to.
  const bool keep = args.no_follow() && (args.path().empty() || args.path().back() != '/');
  ASSIGN_OR_RETURN(const Place place,
                   roots.Resolve(args.path(), keep ? LastLink::kKeep : LastLink::kFollow));
  struct stat stat {};
  if (fstatat(place.dir.get(), place.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return PathError(errno, "stat", args.path());
  }
  if (place.directory_wanted && !S_ISDIR(stat.st_mode)) {
    return PathError(ENOTDIR, "stat", args.path());
  }
  v1::FileInfo info = InfoOf(stat, args.path());
  if (S_ISLNK(stat.st_mode)) {
    info.set_link_target(ReadLink(place.dir.get(), place.name));
  }
  return info;
}

absl::StatusOr<bool> MakeDirectory(const FileRoots& roots, const v1::MakeDirectoryArgs& args) {
  const absl::StatusOr<Place> place =
      args.parents() ? roots.ResolveMakingParents(args.path(), LastLink::kFollow)
                     : roots.Resolve(args.path(), LastLink::kFollow);
  RETURN_IF_ERROR(place.status());
  const mode_t mode = args.mode() == 0 ? kDefaultMode : args.mode() & 0777U & ~kUmask;
  bool made = false;
  if (place->name != ".") {
    ASSIGN_OR_RETURN(made, MakeDirectoryAt(place->dir.get(), place->name, mode, args.path()));
  }
  if (made) {
    return true;
  }
  if (!args.parents()) {
    return absl::AlreadyExistsError(fmt::format("{} is there already", Quoted(args.path())));
  }
  struct stat stat {};
  if (fstatat(place->dir.get(), place->name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return PathError(errno, "stat", args.path());
  }
  if (!S_ISDIR(stat.st_mode)) {
    return absl::FailedPreconditionError(
        fmt::format("{} is {}", Quoted(args.path()), KindName(stat.st_mode)));
  }
  return false;
}

absl::Status Move(const FileRoots& roots, const v1::MoveArgs& args, const Cancel& cancel) {
  ASSIGN_OR_RETURN(const Place from, roots.Resolve(args.source(), LastLink::kKeep));
  ASSIGN_OR_RETURN(const Place to, roots.Resolve(args.destination(), LastLink::kKeep));
  if (from.name == ".") {
    return absl::FailedPreconditionError(
        fmt::format("{} is a root, or ends in a dot, and cannot be moved", Quoted(args.source())));
  }
  if (to.name == ".") {
    return absl::AlreadyExistsError(fmt::format("{} is there already", Quoted(args.destination())));
  }
  const int failed =
      args.no_replace()
          ? RenameNoReplace(from.dir.get(), from.name, to.dir.get(), to.name)
          : renameat(from.dir.get(), from.name.c_str(), to.dir.get(), to.name.c_str());
  if (failed == 0) {
    return absl::OkStatus();
  }
  const int error = errno;
  if (error == EXDEV) {
    // Nothing may be lost on the way, so what cannot be copied (a fifo) stops the move.
    RETURN_IF_ERROR(CopyPlace(from, to, args.source(), args.destination(),
                              {.recursive = true, .no_replace = args.no_replace(), .all = true},
                              cancel)
                        .status());
    return RemovePlace(from, args.source(), /*recursive=*/true, cancel).status();
  }
  const std::string what = fmt::format("move {} to", Quoted(args.source()));
  switch (error) {
    case EEXIST:
    case ENOTEMPTY:
      if (!args.no_replace()) {
        return absl::FailedPreconditionError(
            fmt::format("{} is a directory that is not empty", Quoted(args.destination())));
      }
      return absl::AlreadyExistsError(
          fmt::format("{} is there already", Quoted(args.destination())));
    case EINVAL:
      return absl::FailedPreconditionError(
          fmt::format("{} {}: it lies inside", what, Quoted(args.destination())));
    default:
      return PathError(error, what, args.destination());
  }
}

}  // namespace creel::shim
