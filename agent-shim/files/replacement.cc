#include "agent-shim/files/replacement.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr int kNameTries = 10;
constexpr size_t kRandomBytes = 8;

}  // namespace

absl::StatusOr<ReplacementFile> ReplacementFile::Create(int dir, mode_t mode,
                                                        std::string_view path) {
  UniqueFd own(fcntl(dir, F_DUPFD_CLOEXEC, 0));
  if (!own.valid()) {
    return PathError(errno, "write", path);
  }
  ReplacementFile file(std::move(own), path);
  for (int attempt = 0; attempt < kNameTries && !file.fd_.valid(); ++attempt) {
    std::string name = ".creel-" + Hex(RandomBytes(kRandomBytes));
    file.fd_.reset(openat(file.dir_.get(), name.c_str(),
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (file.fd_.valid()) {
      file.temporary_ = std::move(name);
    } else if (errno != EEXIST) {
      break;
    }
  }
  if (!file.fd_.valid() || fchmod(file.fd_.get(), mode) != 0) {
    return PathError(errno, "write", path);
  }
  return file;
}

ReplacementFile::ReplacementFile(ReplacementFile&& other) noexcept
    : dir_(std::move(other.dir_)),
      path_(std::move(other.path_)),
      fd_(std::move(other.fd_)),
      temporary_(std::exchange(other.temporary_, {})) {}

ReplacementFile::~ReplacementFile() {
  if (!temporary_.empty()) {
    unlinkat(dir_.get(), temporary_.c_str(), 0);
  }
}

absl::Status ReplacementFile::Write(std::string_view data) {
  const int error = WriteAll(fd_.get(), data);
  return error == 0 ? absl::OkStatus() : PathError(error, "write", path_);
}

absl::Status ReplacementFile::Commit(const std::string& name, bool no_replace) {
  const int failed = no_replace
                         ? RenameNoReplace(dir_.get(), temporary_, dir_.get(), name)
                         : renameat(dir_.get(), temporary_.c_str(), dir_.get(), name.c_str());
  if (failed != 0) {
    if (errno == EEXIST) {
      return absl::AlreadyExistsError(fmt::format("{} is there already", Quoted(path_)));
    }
    return PathError(errno, "write", path_);
  }
  temporary_.clear();
  return absl::OkStatus();
}

absl::StatusOr<struct stat> ReplacementFile::Stat() const {
  struct stat stat {};
  if (fstat(fd_.get(), &stat) != 0) {
    return PathError(errno, "stat", path_);
  }
  return stat;
}

bool SameContent(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec &&
         a.st_ctim.tv_sec == b.st_ctim.tv_sec && a.st_ctim.tv_nsec == b.st_ctim.tv_nsec;
}

bool WritableByUs(int dir, const std::string& name) {
  // AT_EACCESS, or the kernel would ask for the real uid, which is the shim's.
  if (syscall(SYS_faccessat2, dir, name.c_str(), W_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW) == 0) {
    return true;
  }
  if (errno != ENOSYS && errno != EPERM && errno != EINVAL) {
    return false;
  }
  const UniqueFd fd(
      openat(dir, name.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC));
  return fd.valid() || errno == ETXTBSY || errno == EWOULDBLOCK;
}

}  // namespace creel::shim
