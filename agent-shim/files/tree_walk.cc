#include "agent-shim/files/tree_walk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr size_t kBufferBytes = size_t{16} * 1024;
constexpr size_t kMaxOpenFrames = 16;
constexpr size_t kMaxDepth = 100'000;

// struct linux_dirent64, of which no header tells: inode, offset, record length, type, name.
constexpr size_t kOffsetAt = 8;
constexpr size_t kLengthAt = 16;
constexpr size_t kNameAt = 19;

}  // namespace

absl::StatusOr<std::string_view> DirReader::Next() {
  while (true) {
    if (position_ == filled_) {
      buffer_.resize(kBufferBytes);
      const int64_t got = syscall(SYS_getdents64, fd_.get(), buffer_.data(), buffer_.size());
      if (got < 0) {
        // A directory that was removed has no entries left.
        return errno == ENOENT ? absl::StatusOr<std::string_view>(std::string_view())
                               : ErrnoStatus(errno, "read a directory");
      }
      if (got == 0) {
        return std::string_view();
      }
      position_ = 0;
      filled_ = static_cast<size_t>(got);
    }
    const char* record = buffer_.data() + position_;
    uint16_t length = 0;
    std::memcpy(&offset_, record + kOffsetAt, sizeof offset_);
    std::memcpy(&length, record + kLengthAt, sizeof length);
    position_ += length;
    const std::string_view name(record + kNameAt);
    if (name != "." && name != "..") {
      return name;
    }
  }
}

void DirReader::Suspend() {
  fd_.reset();
  buffer_ = std::string();
  position_ = 0;
  filled_ = 0;
}

absl::Status DirReader::Resume(UniqueFd fd, bool rewind) {
  fd_ = std::move(fd);
  if (!rewind && lseek(fd_.get(), offset_, SEEK_SET) < 0) {
    return ErrnoStatus(errno, "seek in a directory");
  }
  return absl::OkStatus();
}

absl::StatusOr<TreeWalk> TreeWalk::Start(UniqueFd top, Options options) {
  TreeWalk walk(options);
  RETURN_IF_ERROR(walk.Push(std::move(top)));
  return walk;
}

absl::Status TreeWalk::Push(UniqueFd fd) {
  struct stat stat {};
  if (fstat(fd.get(), &stat) != 0) {
    return ErrnoStatus(errno, "stat");
  }
  if (frames_.size() >= kMaxDepth) {
    return absl::FailedPreconditionError(
        fmt::format("the tree is deeper than {} directories", kMaxDepth));
  }
  if (open_frames_ == kMaxOpenFrames) {
    frames_[frames_.size() - open_frames_].reader.Suspend();
    --open_frames_;
  }
  frames_.push_back({.reader = DirReader(std::move(fd)),
                     .device = stat.st_dev,
                     .inode = stat.st_ino,
                     .name = entry_.name,
                     .path_length = path_.size()});
  ++open_frames_;
  return absl::OkStatus();
}

absl::StatusOr<TreeWalk::Event> TreeWalk::Next(const Cancel& cancel) {
  while (true) {
    RETURN_IF_ERROR(cancel.Check());
    Frame& frame = frames_.back();
    path_.resize(frame.path_length);
    ASSIGN_OR_RETURN(const std::string_view name, frame.reader.Next());
    if (name.empty()) {
      if (frames_.size() == 1) {
        return Event::kEnd;
      }
      RETURN_IF_ERROR(ReturnToParent());
      return Event::kLeave;
    }
    entry_.name = name;
    if (fstatat(frame.reader.fd(), entry_.name.c_str(), &entry_.stat, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) {
        continue;
      }
      // It can be listed but not looked at, as in a directory without search permission.
      entry_.stat = {};
    }
    entry_.path = JoinPath(path_, entry_.name);
    entry_.depth = frames_.size() - 1;
    return Event::kEntry;
  }
}

absl::Status TreeWalk::Descend() {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenDirectory(dir_fd(), entry_.name, entry_.path));
  const size_t length = path_.size();
  if (options_.with_paths) {
    path_ = entry_.path;
  }
  const absl::Status pushed = Push(std::move(fd));
  if (!pushed.ok()) {
    path_.resize(length);
  }
  return pushed;
}

absl::Status TreeWalk::ReturnToParent() {
  UniqueFd parent;
  Frame& child = frames_.back();
  Frame& frame = frames_[frames_.size() - 2];
  if (open_frames_ == 1) {
    parent.reset(openat(child.reader.fd(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct stat stat {};
    if (!parent.valid() || fstat(parent.get(), &stat) != 0) {
      return PathError(errno, "go back up from", child.name);
    }
    if (stat.st_dev != frame.device || stat.st_ino != frame.inode) {
      return absl::AbortedError(
          fmt::format("{} was moved while its content was walked", Quoted(child.name)));
    }
    RETURN_IF_ERROR(frame.reader.Resume(std::move(parent), options_.removing));
  } else {
    --open_frames_;
  }
  entry_.name = std::move(child.name);
  entry_.path = options_.with_paths ? path_ : entry_.name;
  entry_.stat = {};
  entry_.stat.st_dev = child.device;
  entry_.stat.st_ino = child.inode;
  entry_.stat.st_mode = S_IFDIR;
  frames_.pop_back();
  entry_.depth = frames_.size() - 1;
  path_.resize(frames_.back().path_length);
  return absl::OkStatus();
}

}  // namespace creel::shim
