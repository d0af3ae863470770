#include "supervisor/evidence/named_path.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <string_view>
#include <utility>
#include <vector>

namespace creel {
namespace {

// As many as the kernel follows.
constexpr int kMaxLinks = 40;

std::deque<std::string> PartsOf(std::string_view path) {
  std::deque<std::string> parts;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (const std::string_view part = path.substr(begin, end - begin);
        !part.empty() && part != ".") {
      parts.emplace_back(part);
    }
    begin = end + 1;
  }
  return parts;
}

bool Ours(const struct stat& info) { return info.st_uid == 0 || info.st_uid == ::geteuid(); }

// Goes along a path, one part after the other, as long as nobody else may write there.
class Walk {
 public:
  explicit Walk(const std::string& path) : path_(path), left_(PartsOf(path)) {}

  absl::StatusOr<UniqueFd> Run() {
    RETURN_IF_ERROR(ToRoot());
    while (!left_.empty()) {
      struct stat folder {};
      if (::fstat(way_.back().get(), &folder) != 0) {
        return Failed(errno);
      }
      if (!Ours(folder) || (folder.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return TheRest();
      }
      const std::string part = std::move(left_.front());
      left_.pop_front();
      if (part == "..") {
        if (way_.size() > 1) {
          way_.pop_back();
        }
        continue;
      }
      RETURN_IF_ERROR(Step(part));
    }
    return std::move(way_.back());
  }

 private:
  [[nodiscard]] absl::Status Failed(int error) const {
    return ErrnoStatus(error, fmt::format("open '{}'", path_));
  }

  absl::Status ToRoot() {
    way_.clear();
    way_.emplace_back(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    return way_.back().valid() ? absl::OkStatus() : Failed(errno);
  }

  // One part, in a folder that nobody else may write.
  absl::Status Step(const std::string& part) {
    UniqueFd next(::openat(way_.back().get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat info {};
    if (!next.valid() || ::fstat(next.get(), &info) != 0) {
      return Failed(errno);
    }
    if (!S_ISLNK(info.st_mode)) {
      way_.push_back(std::move(next));
      return absl::OkStatus();
    }
    if (left_.empty()) {
      return absl::FailedPreconditionError(
          fmt::format("'{}' is a link, which is not followed", path_));
    }
    if (!Ours(info) || ++links_ > kMaxLinks) {
      return absl::FailedPreconditionError(
          fmt::format("'{}' in '{}' is a link of somebody else, or one of too many, and is not "
                      "followed",
                      part, path_));
    }
    std::string target(4096, '\0');
    const ssize_t size = ::readlinkat(next.get(), "", target.data(), target.size());
    if (size <= 0 || static_cast<size_t>(size) == target.size()) {
      return Failed(size < 0 ? errno : ENAMETOOLONG);
    }
    target.resize(static_cast<size_t>(size));
    std::deque<std::string> parts = PartsOf(target);
    left_.insert(left_.begin(), parts.begin(), parts.end());
    return target.starts_with('/') ? ToRoot() : absl::OkStatus();
  }

  // What lies where others may write: nothing in it is followed, and nothing leads out of it.
  absl::StatusOr<UniqueFd> TheRest() {
    std::string rest;
    for (const std::string& part : left_) {
      rest += rest.empty() ? part : "/" + part;
    }
    open_how how{};
    how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    UniqueFd fd(static_cast<int>(
        ::syscall(SYS_openat2, way_.back().get(), rest.c_str(), &how, sizeof how)));
    // Of a link at the very end O_PATH with O_NOFOLLOW would open the link itself.
    struct stat info {};
    const bool link =
        fd.valid() ? ::fstat(fd.get(), &info) == 0 && S_ISLNK(info.st_mode) : errno == ELOOP;
    if (link) {
      return absl::FailedPreconditionError(
          fmt::format("there is a link in '{}' of '{}', where others than Creel's user may write; "
                      "it is not followed",
                      rest, path_));
    }
    return fd.valid() ? absl::StatusOr<UniqueFd>(std::move(fd)) : Failed(errno);
  }

  const std::string& path_;
  std::deque<std::string> left_;
  // The folders from "/" to where the walk is.
  std::vector<UniqueFd> way_;
  int links_ = 0;
};

}  // namespace

absl::StatusOr<UniqueFd> OpenNamed(const std::string& path) {
  if (!path.starts_with('/')) {
    return absl::InvalidArgumentError(fmt::format("'{}' does not begin with a /", path));
  }
  return Walk(path).Run();
}

absl::StatusOr<UniqueFd> OpenToRead(int named) {
  struct stat info {};
  if (::fstat(named, &info) != 0) {
    return ErrnoStatus(errno, "look at a file");
  }
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError("it is neither a file nor a folder");
  }
  UniqueFd fd(::open(fmt::format("/proc/self/fd/{}", named).c_str(),
                     O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd.valid()) {
    return ErrnoStatus(errno, "open it");
  }
  return fd;
}

}  // namespace creel
