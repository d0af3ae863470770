#include "supervisor/sandbox/dir_tree.h"

#include "supervisor/base/crypto.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

namespace creel {
namespace {

// Directories open at once; what lies deeper is moved up first.
constexpr size_t kMaxDepth = 48;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using DirHandle = std::unique_ptr<DIR, CloseDir>;

DirHandle OpenDirAt(int parent, const char* name) {
  const int fd =
      ::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return nullptr;
  }
  DIR* dir = ::fdopendir(fd);
  if (dir == nullptr) {
    ::close(fd);
  }
  return DirHandle(dir);
}

// Opens a directory of ours whose mode keeps us out, as a tool may leave one behind.
DirHandle OpenForRemoval(int parent, const char* name) {
  DirHandle dir = OpenDirAt(parent, name);
  if (dir != nullptr || errno != EACCES) {
    return dir;
  }
  const UniqueFd path(::openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (path.valid()) {
    (void)::chmod(fmt::format("/proc/self/fd/{}", path.get()).c_str(), 0700);
  }
  return OpenDirAt(parent, name);
}

bool IsDots(const char* name) {
  return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

struct Level {
  DirHandle dir;
  std::string name;
};

// Empties and removes the directory `name` in `parent`.
absl::Status RemoveDirectory(int parent, const std::string& name, dev_t device) {
  std::vector<Level> levels;
  DirHandle top = OpenForRemoval(parent, name.c_str());
  if (top == nullptr) {
    return ErrnoStatus(errno, fmt::format("open '{}'", name));
  }
  const int top_fd = ::dirfd(top.get());
  levels.push_back({std::move(top), name});
  uint64_t moved = 0;
  while (!levels.empty()) {
    const int fd = ::dirfd(levels.back().dir.get());
    errno = 0;
    const dirent* entry = ::readdir(levels.back().dir.get());
    if (entry == nullptr) {
      if (errno != 0) {
        return ErrnoStatus(errno, fmt::format("read directory '{}'", levels.back().name));
      }
      const std::string done = levels.back().name;
      const int above = levels.size() > 1 ? ::dirfd(levels[levels.size() - 2].dir.get()) : parent;
      if (::unlinkat(above, done.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) {
        levels.pop_back();
        continue;
      }
      // Directories that were moved up here in the meantime, or names that readdir passed over.
      if (errno != ENOTEMPTY && errno != EEXIST) {
        return ErrnoStatus(errno, fmt::format("remove directory '{}'", done));
      }
      ::rewinddir(levels.back().dir.get());
      continue;
    }
    if (IsDots(entry->d_name)) {
      continue;
    }
    const std::string child = entry->d_name;
    if (entry->d_type != DT_DIR) {
      if (::unlinkat(fd, child.c_str(), 0) == 0 || errno == ENOENT) {
        continue;
      }
      if (errno != EISDIR && errno != EPERM) {
        return ErrnoStatus(errno, fmt::format("remove '{}'", child));
      }
    }
    struct stat about {};
    if (::fstatat(fd, child.c_str(), &about, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) {
        continue;
      }
      return ErrnoStatus(errno, fmt::format("look at '{}'", child));
    }
    if (!S_ISDIR(about.st_mode)) {
      return absl::PermissionDeniedError(fmt::format("remove '{}': not permitted", child));
    }
    if (about.st_dev != device) {
      return absl::FailedPreconditionError(
          fmt::format("'{}' is on another file system: something is mounted there", child));
    }
    if (levels.size() >= kMaxDepth) {
      const std::string up = fmt::format(".creel-rm-{}-{}", ::getpid(), moved++);
      if (::renameat(fd, child.c_str(), top_fd, up.c_str()) == 0) {
        continue;
      }
      return ErrnoStatus(errno, fmt::format("move '{}' up", child));
    }
    DirHandle next = OpenForRemoval(fd, child.c_str());
    if (next == nullptr) {
      return ErrnoStatus(errno, fmt::format("open '{}'", child));
    }
    levels.push_back({std::move(next), child});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MakeDirectories(const std::string& path, uint32_t mode) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (::mkdir(part.c_str(), mode) == 0) {
      if (::chmod(part.c_str(), mode) != 0) {
        return ErrnoStatus(errno, fmt::format("set the mode of '{}'", part));
      }
    } else if (errno != EEXIST) {
      // Above the last part a read-only or closed directory does no harm if it is there.
      const int error = errno;
      struct stat about {};
      if (::stat(part.c_str(), &about) != 0) {
        return ErrnoStatus(error, fmt::format("make directory '{}'", part));
      }
    }
    if (slash == std::string::npos) {
      break;
    }
  }
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0) {
    return ErrnoStatus(errno, fmt::format("look at '{}'", path));
  }
  if (!S_ISDIR(about.st_mode)) {
    return ErrnoStatus(ENOTDIR, fmt::format("make directory '{}'", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenDirectory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open directory '{}'", path));
  }
  return fd;
}

absl::Status RemoveTree(const std::string& parent, const std::string& name) {
  const UniqueFd above(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!above.valid()) {
    return errno == ENOENT ? absl::OkStatus()
                           : ErrnoStatus(errno, fmt::format("open directory '{}'", parent));
  }
  struct stat about {};
  if (::fstatat(above.get(), name.c_str(), &about, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? absl::OkStatus()
                           : ErrnoStatus(errno, fmt::format("look at '{}/{}'", parent, name));
  }
  if (!S_ISDIR(about.st_mode)) {
    if (::unlinkat(above.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, fmt::format("remove '{}/{}'", parent, name));
    }
    return absl::OkStatus();
  }
  struct stat parent_about {};
  if (::fstat(above.get(), &parent_about) != 0) {
    return ErrnoStatus(errno, fmt::format("look at '{}'", parent));
  }
  if (about.st_dev != parent_about.st_dev) {
    return absl::FailedPreconditionError(
        fmt::format("'{}/{}': something is mounted there", parent, name));
  }
  return Annotate(RemoveDirectory(above.get(), name, about.st_dev),
                  fmt::format("remove '{}/{}'", parent, name));
}

uint64_t TreeBytes(const std::string& path, uint64_t max_entries) {
  uint64_t bytes = 0;
  std::vector<DirHandle> levels;
  levels.push_back(OpenDirAt(AT_FDCWD, path.c_str()));
  struct stat about {};
  if (levels.back() == nullptr || ::fstat(::dirfd(levels.back().get()), &about) != 0) {
    return 0;
  }
  const dev_t device = about.st_dev;
  while (!levels.empty() && max_entries > 0) {
    const dirent* entry = ::readdir(levels.back().get());
    if (entry == nullptr) {
      levels.pop_back();
      continue;
    }
    if (IsDots(entry->d_name)) {
      continue;
    }
    --max_entries;
    const int fd = ::dirfd(levels.back().get());
    if (::fstatat(fd, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) != 0 || about.st_dev != device) {
      continue;
    }
    bytes += static_cast<uint64_t>(about.st_blocks) * 512;
    if (S_ISDIR(about.st_mode) && levels.size() < kMaxDepth) {
      if (DirHandle next = OpenDirAt(fd, entry->d_name); next != nullptr) {
        levels.push_back(std::move(next));
      }
    }
  }
  return bytes;
}

absl::Status WriteWholeFile(const std::string& path, std::string_view content, uint32_t mode) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, Hex(RandomBytes(8)));
  UniqueFd fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("write '{}'", temporary));
  }
  while (!content.empty()) {
    const ssize_t wrote = ::write(fd.get(), content.data(), content.size());
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote < 0) {
      const int error = errno;
      (void)::unlink(temporary.c_str());
      return ErrnoStatus(error, fmt::format("write '{}'", temporary));
    }
    content.remove_prefix(static_cast<size_t>(wrote));
  }
  if (::fsync(fd.get()) != 0 || ::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    (void)::unlink(temporary.c_str());
    return ErrnoStatus(error, fmt::format("write '{}'", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t max_bytes) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("read '{}'", path));
  }
  std::string content;
  char buffer[16384];
  while (content.size() < max_bytes) {
    const ssize_t got =
        ::read(fd.get(), buffer, std::min(sizeof buffer, max_bytes - content.size()));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return ErrnoStatus(errno, fmt::format("read '{}'", path));
    }
    if (got == 0) {
      break;
    }
    content.append(buffer, static_cast<size_t>(got));
  }
  return content;
}

}  // namespace creel
