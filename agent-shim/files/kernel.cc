#include "agent-shim/files/kernel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "agent-shim/files/paths.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

// No controlling terminal, no waiting, no leak into a command.
constexpr int kSafe = O_NONBLOCK | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW;
constexpr auto kLeasePause = std::chrono::milliseconds(20);
constexpr int kLeaseTries = 10;

}  // namespace

int Openat2(int dir, const char* path, int flags, uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags);
  how.resolve = resolve;
  return static_cast<int>(syscall(SYS_openat2, dir, path, &how, sizeof how));
}

bool Openat2IsMissing(int error) {
  return error == ENOSYS || error == EPERM || error == EINVAL || error == E2BIG;
}

int RenameNoReplace(int from_dir, const std::string& from, int to_dir, const std::string& to) {
  if (syscall(SYS_renameat2, from_dir, from.c_str(), to_dir, to.c_str(), RENAME_NOREPLACE) == 0) {
    return 0;
  }
  if (errno != EINVAL && errno != ENOSYS) {
    return -1;
  }
  const int refused = errno;
  struct stat stat {};
  if (fstatat(from_dir, from.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return -1;
  }
  if (!S_ISDIR(stat.st_mode)) {
    if (linkat(from_dir, from.c_str(), to_dir, to.c_str(), 0) != 0) {
      return -1;
    }
    return unlinkat(from_dir, from.c_str(), 0);
  }
  // EINVAL is also what moving a directory into itself gives, with or without the flag.
  if (fstatat(to_dir, to.c_str(), &stat, AT_SYMLINK_NOFOLLOW) == 0) {
    errno = EEXIST;
    return -1;
  }
  if (renameat(from_dir, from.c_str(), to_dir, to.c_str()) != 0) {
    errno = errno == ENOSYS ? refused : errno;
    return -1;
  }
  return 0;
}

absl::StatusOr<bool> MakeDirectoryAt(int dir, const std::string& name, mode_t mode,
                                     std::string_view path) {
  if (mkdirat(dir, name.c_str(), mode) != 0) {
    if (errno == EEXIST) {
      return false;
    }
    return PathError(errno, "make directory", path);
  }
  UniqueFd made(openat(dir, name.c_str(), O_RDONLY | O_DIRECTORY | kSafe));
  if (!made.valid() || fchmod(made.get(), mode) != 0) {
    return PathError(errno, "set the mode of", path);
  }
  return true;
}

absl::StatusOr<UniqueFd> OpenRegular(int dir, const std::string& name, int flags,
                                     std::string_view path, struct stat* stat) {
  const auto wrong_kind = [&] {
    return absl::FailedPreconditionError(
        fmt::format("{} is {}", Quoted(path), KindName(stat->st_mode)));
  };
  // Looked at before, since opening a device may already do something, and after, since it may
  // have been exchanged.
  if (fstatat(dir, name.c_str(), stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return PathError(errno, "open", path);
  }
  if (!S_ISREG(stat->st_mode)) {
    return wrong_kind();
  }
  UniqueFd fd;
  for (int attempt = 0; attempt < kLeaseTries; ++attempt) {
    fd.reset(openat(dir, name.c_str(), flags | kSafe));
    if (fd.valid() || errno != EWOULDBLOCK) {
      break;
    }
    std::this_thread::sleep_for(kLeasePause);
    errno = EWOULDBLOCK;
  }
  if (!fd.valid() || fstat(fd.get(), stat) != 0) {
    return PathError(errno, "open", path);
  }
  if (!S_ISREG(stat->st_mode)) {
    return wrong_kind();
  }
  return fd;
}

UniqueFd TryOpenRegular(int dir, const std::string& name, struct stat* stat) {
  UniqueFd fd(openat(dir, name.c_str(), O_RDONLY | kSafe));
  if (fd.valid() && (fstat(fd.get(), stat) != 0 || !S_ISREG(stat->st_mode))) {
    fd.reset();
  }
  return fd;
}

absl::StatusOr<UniqueFd> OpenDirectory(int dir, const std::string& name, std::string_view path) {
  UniqueFd fd(openat(dir, name.c_str(), O_RDONLY | O_DIRECTORY | kSafe));
  if (!fd.valid()) {
    return PathError(errno, "open", path);
  }
  return fd;
}

int WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t wrote = write(fd, data.data(), data.size());
    if (wrote < 0 && errno != EINTR) {
      return errno;
    }
    data.remove_prefix(wrote > 0 ? static_cast<size_t>(wrote) : 0);
  }
  return 0;
}

ssize_t ReadAt(int fd, char* data, size_t size, uint64_t offset) {
  size_t have = 0;
  while (have < size) {
    const ssize_t got = pread(fd, data + have, size - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return -1;
    }
    if (got == 0) {
      break;
    }
    have += static_cast<size_t>(got);
  }
  return static_cast<ssize_t>(have);
}

}  // namespace creel::shim
