#include "supervisor/sandbox/loop_image.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "supervisor/sandbox/dir_tree.h"

namespace creel {
namespace {

// Part of a template's name: a change of what mkfs is asked makes new ones.
constexpr int kFormat = 1;
constexpr uint64_t kMiB = 1u << 20;

absl::Status RunMkfs(const std::string& image) {
  std::vector<std::string> words{"mkfs.ext4",
                                 "-q",
                                 "-F",
                                 "-b",
                                 "4096",
                                 "-m",
                                 "0",
                                 "-O",
                                 "^has_journal,^resize_inode,^orphan_file",
                                 "-E",
                                 "lazy_itable_init=1,nodiscard,root_owner=0:0",
                                 image};
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  char path[] = "PATH=/usr/sbin:/sbin:/usr/bin:/bin";
  char* environment[] = {path, nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  int error = ENOENT;
  pid_t child = -1;
  for (const char* program : {"/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"}) {
    error = ::posix_spawn(&child, program, &actions, nullptr, argv.data(), environment);
    if (error != ENOENT) {
      break;
    }
  }
  ::posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) {
    return absl::FailedPreconditionError("mkfs.ext4 is not installed: install e2fsprogs");
  }
  if (error != 0) {
    return ErrnoStatus(error, "run mkfs.ext4");
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) {
      return ErrnoStatus(errno, "wait for mkfs.ext4");
    }
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return absl::InternalError(fmt::format("mkfs.ext4 failed on '{}' (status {})", image, status));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Template(const std::string& directory, uint64_t bytes) {
  std::string path = fmt::format("{}/ext4-{}-v{}.img", directory, bytes / kMiB, kFormat);
  if (::access(path.c_str(), R_OK) == 0) {
    return path;
  }
  RETURN_IF_ERROR(MakeDirectories(directory, 0700));
  const UniqueFd lock(::open((directory + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.valid() || ::flock(lock.get(), LOCK_EX) != 0) {
    return ErrnoStatus(errno, fmt::format("lock '{}/lock'", directory));
  }
  if (::access(path.c_str(), R_OK) == 0) {
    return path;
  }
  const std::string raw = path + ".new";
  (void)::unlink(raw.c_str());
  const UniqueFd fd(::open(raw.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, fmt::format("make '{}'", raw));
  }
  absl::Status formatted = RunMkfs(raw);
  if (formatted.ok() && (::fsync(fd.get()) != 0 || ::rename(raw.c_str(), path.c_str()) != 0)) {
    formatted = ErrnoStatus(errno, fmt::format("make '{}'", path));
  }
  if (!formatted.ok()) {
    (void)::unlink(raw.c_str());
    return formatted;
  }
  return path;
}

absl::Status CopySparse(int from, int to, uint64_t bytes) {
  if (::ioctl(to, FICLONE, from) == 0) {
    return absl::OkStatus();
  }
  if (::ftruncate(to, static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, "set an image's size");
  }
  const off_t end = static_cast<off_t>(bytes);
  for (off_t at = 0; at < end;) {
    const off_t data = ::lseek(from, at, SEEK_DATA);
    if (data < 0) {
      return errno == ENXIO ? absl::OkStatus() : ErrnoStatus(errno, "look for data in an image");
    }
    const off_t hole = ::lseek(from, data, SEEK_HOLE);
    if (hole < 0) {
      return ErrnoStatus(errno, "look for holes in an image");
    }
    loff_t in = data;
    loff_t out = data;
    while (in < hole) {
      const ssize_t copied =
          ::copy_file_range(from, &in, to, &out, static_cast<size_t>(hole - in), 0);
      if (copied < 0 && errno == EINTR) {
        continue;
      }
      if (copied <= 0) {
        return ErrnoStatus(copied < 0 ? errno : EIO, "copy an image");
      }
    }
    at = hole;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MakeLoopImage(const std::string& template_dir, const std::string& path,
                           uint64_t bytes) {
  const uint64_t size = std::max<uint64_t>((bytes + kMiB - 1) / kMiB, 8) * kMiB;
  ASSIGN_OR_RETURN(const std::string source, Template(template_dir, size));
  const UniqueFd from(::open(source.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!from.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", source));
  }
  const UniqueFd to(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!to.valid()) {
    return ErrnoStatus(errno, fmt::format("make '{}'", path));
  }
  if (absl::Status copied = CopySparse(from.get(), to.get(), size); !copied.ok()) {
    (void)::unlink(path.c_str());
    return copied;
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> AttachLoop(const std::string& image, std::string* device) {
  const UniqueFd file(::open(image.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", image));
  }
  const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control.valid()) {
    return ErrnoStatus(errno, "open '/dev/loop-control'");
  }
  // Others take free devices too; between asking and taking one may be gone.
  for (int attempt = 0; attempt < 64; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) {
      return ErrnoStatus(errno, "find a free loop device");
    }
    std::string name = fmt::format("/dev/loop{}", number);
    UniqueFd loop(::open(name.c_str(), O_RDWR | O_CLOEXEC));
    if (!loop.valid()) {
      if (errno == ENXIO || errno == EBUSY) {
        continue;
      }
      return ErrnoStatus(errno, fmt::format("open '{}'", name));
    }
    struct loop_config config {};
    config.fd = static_cast<uint32_t>(file.get());
    config.block_size = 4096;
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (::ioctl(loop.get(), LOOP_CONFIGURE, &config) == 0) {
      *device = std::move(name);
      return loop;
    }
    if (errno != EBUSY) {
      return ErrnoStatus(errno, fmt::format("attach '{}' to '{}'", image, name));
    }
  }
  return absl::ResourceExhaustedError("no loop device could be had: others took each free one");
}

}  // namespace creel
