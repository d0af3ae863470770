#include "agent-shim/files/copy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "agent-shim/files/replacement.h"
#include "agent-shim/files/tree_walk.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr mode_t kModeBits = 0777;
// How much is copied between two looks at the cancel flag.
constexpr size_t kPieceBytes = size_t{8} * 1024 * 1024;
constexpr size_t kBlockBytes = size_t{256} * 1024;
// Above any tree that a path can name.
constexpr int kMaxAncestors = 4096;

struct Identity {
  dev_t device;
  ino_t inode;
  bool operator==(const Identity&) const = default;
};

absl::StatusOr<Identity> IdentityOf(int fd, std::string_view path) {
  struct stat stat {};
  if (fstat(fd, &stat) != 0) {
    return PathError(errno, "stat", path);
  }
  return Identity{.device = stat.st_dev, .inode = stat.st_ino};
}

// One copy on its way: the destination directory it stands in, and what it has made.
class Copier {
 public:
  Copier(std::string_view source, std::string_view destination, const CopyOptions& options,
         const Cancel& cancel)
      : source_(source), destination_(destination), options_(options), cancel_(cancel) {}

  absl::Status File(int from_dir, const std::string& from, int to_dir, const std::string& to);
  absl::Status Link(int from_dir, const std::string& from, int to_dir, const std::string& to);
  absl::Status Tree(UniqueFd from, mode_t mode, const Place& to);
  absl::Status Special(const struct stat& stat, std::string_view name) const {
    if (!options_.all) {
      return absl::OkStatus();
    }
    return absl::FailedPreconditionError(
        fmt::format("{} holds {} and cannot be copied as a whole: {}", Quoted(source_),
                    KindName(stat.st_mode), Quoted(name)));
  }
  [[nodiscard]] const Copied& copied() const { return copied_; }

 private:
  absl::Status Content(int from, int to, uint64_t size, std::string_view name);
  absl::Status Range(int from, int to, uint64_t begin, uint64_t end, std::string_view name);
  // Makes `name` in `to_`, or takes the directory that is there, and goes into it.
  absl::Status EnterTarget(const std::string& name, mode_t mode);
  absl::Status LeaveTarget();

  const std::string source_;
  const std::string destination_;
  const CopyOptions options_;
  const Cancel& cancel_;
  Copied copied_;
  bool clone_ = true;
  bool copy_range_ = true;
  // The directory that is copied into, and those above it.
  UniqueFd to_;
  std::vector<Identity> above_;
};

absl::Status Copier::File(int from_dir, const std::string& from, int to_dir,
                          const std::string& to) {
  struct stat stat {};
  ASSIGN_OR_RETURN(const UniqueFd in, OpenRegular(from_dir, from, O_RDONLY, from, &stat));
  struct stat there {};
  mode_t mode = stat.st_mode & kModeBits;
  if (fstatat(to_dir, to.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0) {
    if (options_.no_replace) {
      return absl::AlreadyExistsError(fmt::format("{} is there already", Quoted(to)));
    }
    if (there.st_dev == stat.st_dev && there.st_ino == stat.st_ino) {
      return absl::FailedPreconditionError(
          fmt::format("{} and {} are the same file", Quoted(from), Quoted(to)));
    }
    if (!S_ISREG(there.st_mode) && !S_ISLNK(there.st_mode)) {
      return absl::FailedPreconditionError(
          fmt::format("{} is {}", Quoted(to), KindName(there.st_mode)));
    }
    if (S_ISREG(there.st_mode)) {
      if (!WritableByUs(to_dir, to)) {
        return PathError(EACCES, "write", to);
      }
      mode = there.st_mode & kModeBits;
    }
  }
  ASSIGN_OR_RETURN(ReplacementFile out, ReplacementFile::Create(to_dir, mode, to));
  RETURN_IF_ERROR(Content(in.get(), out.fd(), static_cast<uint64_t>(stat.st_size), from));
  RETURN_IF_ERROR(out.Commit(to, options_.no_replace));
  ++copied_.entries;
  return absl::OkStatus();
}

absl::Status Copier::Content(int from, int to, uint64_t size, std::string_view name) {
  if (clone_ && size > 0) {
    if (ioctl(to, FICLONE, from) == 0) {
      copied_.bytes += size;
      return absl::OkStatus();
    }
    clone_ = false;
  }
  uint64_t at = 0;
  while (at < size) {
    RETURN_IF_ERROR(cancel_.Check());
    // Holes stay holes, so that a sparse file does not fill the disk.
    off_t data = lseek(from, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      break;
    }
    off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
    if (data < 0 || hole < 0) {
      data = static_cast<off_t>(at);
      hole = static_cast<off_t>(size);
    }
    const uint64_t end = std::min(static_cast<uint64_t>(hole), size);
    RETURN_IF_ERROR(Range(from, to, static_cast<uint64_t>(data), end, name));
    at = std::max(end, at + 1);
  }
  if (ftruncate(to, static_cast<off_t>(size)) != 0) {
    return PathError(errno, "write", name);
  }
  return absl::OkStatus();
}

absl::Status Copier::Range(int from, int to, uint64_t begin, uint64_t end, std::string_view name) {
  std::string block;
  while (begin < end) {
    RETURN_IF_ERROR(cancel_.Check());
    if (copy_range_) {
      auto in = static_cast<off_t>(begin);
      auto out = static_cast<off_t>(begin);
      const ssize_t got =
          copy_file_range(from, &in, to, &out, std::min<uint64_t>(kPieceBytes, end - begin), 0);
      if (got > 0) {
        begin += static_cast<uint64_t>(got);
        copied_.bytes += static_cast<uint64_t>(got);
        continue;
      }
      if (got < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG)) {
        return PathError(errno, "copy", name);
      }
      // Not between these file systems, or the file ends here; reading tells which.
      copy_range_ = got == 0;
    }
    block.resize(std::min<uint64_t>(kBlockBytes, end - begin));
    const ssize_t got = ReadAt(from, block.data(), block.size(), begin);
    if (got < 0) {
      return PathError(errno, "read", name);
    }
    if (got == 0) {
      return absl::OkStatus();
    }
    if (lseek(to, static_cast<off_t>(begin), SEEK_SET) < 0) {
      return PathError(errno, "write", name);
    }
    const int error = WriteAll(to, std::string_view(block).substr(0, static_cast<size_t>(got)));
    if (error != 0) {
      return PathError(error, "write", name);
    }
    begin += static_cast<uint64_t>(got);
    copied_.bytes += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::Status Copier::Link(int from_dir, const std::string& from, int to_dir,
                          const std::string& to) {
  const std::string target = ReadLink(from_dir, from);
  if (symlinkat(target.c_str(), to_dir, to.c_str()) != 0) {
    struct stat there {};
    const bool replaceable = errno == EEXIST && !options_.no_replace &&
                             fstatat(to_dir, to.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
                             !S_ISDIR(there.st_mode);
    if (!replaceable) {
      return PathError(errno, "copy link to", to);
    }
    if (unlinkat(to_dir, to.c_str(), 0) != 0 ||
        symlinkat(target.c_str(), to_dir, to.c_str()) != 0) {
      return PathError(errno, "copy link to", to);
    }
  }
  ++copied_.entries;
  return absl::OkStatus();
}

absl::Status Copier::EnterTarget(const std::string& name, mode_t mode) {
  // Passable while it is filled, whatever its mode will be.
  ASSIGN_OR_RETURN(const bool made, MakeDirectoryAt(to_.get(), name, mode | 0700U, name));
  ASSIGN_OR_RETURN(UniqueFd fd, OpenDirectory(to_.get(), name, name));
  ASSIGN_OR_RETURN(const Identity above, IdentityOf(to_.get(), name));
  above_.push_back(above);
  to_ = std::move(fd);
  copied_.entries += made ? 1 : 0;
  return absl::OkStatus();
}

absl::Status Copier::LeaveTarget() {
  UniqueFd parent(openat(to_.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent.valid()) {
    return PathError(errno, "go back up in", destination_);
  }
  ASSIGN_OR_RETURN(const Identity now, IdentityOf(parent.get(), destination_));
  if (now != above_.back()) {
    return absl::AbortedError(
        fmt::format("a directory in {} was moved while it was filled", Quoted(destination_)));
  }
  above_.pop_back();
  to_ = std::move(parent);
  return absl::OkStatus();
}

absl::Status Copier::Tree(UniqueFd from, mode_t mode, const Place& to) {
  ASSIGN_OR_RETURN(const Identity source, IdentityOf(from.get(), source_));
  const absl::Status inside = absl::FailedPreconditionError(
      fmt::format("{} lies inside {}", Quoted(destination_), Quoted(source_)));
  UniqueFd ancestor(openat(to.dir.get(), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  std::optional<Identity> before;
  for (int i = 0; i < kMaxAncestors && ancestor.valid(); ++i) {
    ASSIGN_OR_RETURN(const Identity now, IdentityOf(ancestor.get(), destination_));
    if (now == source) {
      return inside;
    }
    if (now == before) {
      break;
    }
    before = now;
    ancestor.reset(openat(ancestor.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  to_.reset(openat(to.dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!to_.valid()) {
    return PathError(errno, "open", destination_);
  }
  if (to.name != ".") {
    RETURN_IF_ERROR(EnterTarget(to.name, mode));
  }
  ASSIGN_OR_RETURN(const Identity target, IdentityOf(to_.get(), destination_));
  if (target == source) {
    return inside;
  }
  ASSIGN_OR_RETURN(TreeWalk walk, TreeWalk::Start(std::move(from), {.with_paths = false}));
  std::vector<mode_t> modes;
  while (true) {
    ASSIGN_OR_RETURN(const TreeWalk::Event event, walk.Next(cancel_));
    const TreeWalk::Entry& entry = walk.entry();
    if (event == TreeWalk::Event::kEnd) {
      return absl::OkStatus();
    }
    if (event == TreeWalk::Event::kLeave) {
      if ((modes.back() & 0700U) != 0700U && fchmod(to_.get(), modes.back()) != 0) {
        return PathError(errno, "set the mode of", entry.name);
      }
      modes.pop_back();
      RETURN_IF_ERROR(LeaveTarget());
      continue;
    }
    switch (entry.stat.st_mode & S_IFMT) {
      case S_IFDIR:
        // Moved there while we copied, it would have no end.
        if (Identity{.device = entry.stat.st_dev, .inode = entry.stat.st_ino} == target) {
          return inside;
        }
        RETURN_IF_ERROR(walk.Descend());
        modes.push_back(entry.stat.st_mode & kModeBits);
        RETURN_IF_ERROR(EnterTarget(entry.name, modes.back()));
        break;
      case S_IFLNK:
        RETURN_IF_ERROR(Link(walk.dir_fd(), entry.name, to_.get(), entry.name));
        break;
      case S_IFREG:
        RETURN_IF_ERROR(File(walk.dir_fd(), entry.name, to_.get(), entry.name));
        break;
      default:
        RETURN_IF_ERROR(Special(entry.stat, entry.name));
    }
  }
}

}  // namespace

absl::StatusOr<Copied> CopyPlace(const Place& from, const Place& to, std::string_view source,
                                 std::string_view destination, const CopyOptions& options,
                                 const Cancel& cancel) {
  struct stat stat {};
  if (fstatat(from.dir.get(), from.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return PathError(errno, "copy", source);
  }
  struct stat there {};
  const bool exists = fstatat(to.dir.get(), to.name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0;
  if (exists && options.no_replace) {
    return absl::AlreadyExistsError(fmt::format("{} is there already", Quoted(destination)));
  }
  Copier copier(source, destination, options, cancel);
  switch (stat.st_mode & S_IFMT) {
    case S_IFDIR: {
      if (!options.recursive) {
        return absl::FailedPreconditionError(
            fmt::format("{} is a directory and the copy is not recursive", Quoted(source)));
      }
      if (exists && !S_ISDIR(there.st_mode)) {
        return absl::FailedPreconditionError(
            fmt::format("{} is {}", Quoted(destination), KindName(there.st_mode)));
      }
      ASSIGN_OR_RETURN(UniqueFd fd, OpenDirectory(from.dir.get(), from.name, source));
      RETURN_IF_ERROR(copier.Tree(std::move(fd), stat.st_mode & kModeBits, to));
      break;
    }
    case S_IFLNK:
      RETURN_IF_ERROR(copier.Link(from.dir.get(), from.name, to.dir.get(), to.name));
      break;
    case S_IFREG:
      if (to.directory_wanted || to.name == ".") {
        return PathError(EISDIR, "write", destination);
      }
      RETURN_IF_ERROR(copier.File(from.dir.get(), from.name, to.dir.get(), to.name));
      break;
    default:
      return absl::FailedPreconditionError(
          fmt::format("{} is {}", Quoted(source), KindName(stat.st_mode)));
  }
  return copier.copied();
}

absl::StatusOr<Copied> Copy(const FileRoots& roots, const v1::CopyArgs& args,
                            const Cancel& cancel) {
  ASSIGN_OR_RETURN(
      const Place from,
      roots.Resolve(args.source(), args.recursive() ? LastLink::kKeep : LastLink::kFollow));
  ASSIGN_OR_RETURN(const Place to, roots.Resolve(args.destination(), LastLink::kFollow));
  return CopyPlace(from, to, args.source(), args.destination(),
                   {.recursive = args.recursive(), .no_replace = args.no_replace()}, cancel);
}

}  // namespace creel::shim
