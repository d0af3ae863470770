#include "supervisor/evidence/tree_capture.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

#include "supervisor/evidence/named_path.h"

namespace creel {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Dir = std::unique_ptr<DIR, CloseDir>;

// The kernel refuses O_NOATIME to those who do not own the file.
UniqueFd OpenAt(int folder, const char* name, int flags) {
  UniqueFd fd(::openat(folder, name, flags | O_NOATIME));
  if (!fd.valid() && errno == EPERM) {
    fd.reset(::openat(folder, name, flags));
  }
  return fd;
}

std::string Why(int error) { return std::system_category().message(error); }

// A folder that is still to be listed.
struct Waiting {
  std::string path;  // below the top; empty: the top itself
  uint32_t depth = 1;
};

// Of paths of folders that wait.
constexpr size_t kMaxWaitingBytes = 64u << 20;

// Lists one level after the other, so that what lies on top is had before the entries run out, and
// a folder that is full of them does not hide those beside it.
class Walk {
 public:
  Walk(const TreeBounds& bounds, BundleWriter& bundle) : bounds_(bounds), bundle_(bundle) {}

  absl::Status Run(UniqueFd folder, const std::string& name) {
    struct stat info {};
    if (::fstat(folder.get(), &info) != 0) {
      return ErrnoStatus(errno, "look at a folder");
    }
    device_ = info.st_dev;
    name_ = name;
    top_ = std::move(folder);
    RETURN_IF_ERROR(bundle_.AddOther(name, info, ""));
    waiting_.push_back({.path = "", .depth = 1});
    while (!waiting_.empty() && bundle_.Open()) {
      const Waiting next = std::move(waiting_.front());
      waiting_.pop_front();
      waiting_bytes_ -= next.path.size();
      RETURN_IF_ERROR(List(next));
      if (entries_ >= bounds_.max_entries && !told_) {
        told_ = !waiting_.empty();
        if (told_) {
          TellFull(name_);
        }
        return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }

 private:
  [[nodiscard]] std::string NameOf(const std::string& path) const {
    return path.empty() ? name_ : name_ + "/" + path;
  }

  void TellFull(const std::string& where) {
    bundle_.LeftOut(
        fmt::format("{}: all that follows, as there are more than {} entries (incident.max_files)",
                    where, bounds_.max_entries));
  }

  // Opens a folder below the top, one part of its path after the other: none may be a link.
  UniqueFd OpenBelow(const std::string& path) const {
    UniqueFd at(::openat(top_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (size_t begin = 0; begin < path.size() && at.valid();) {
      const size_t end = std::min(path.find('/', begin), path.size());
      at = OpenAt(at.get(), path.substr(begin, end - begin).c_str(),
                  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
      begin = end + 1;
    }
    return at;
  }

  absl::Status List(const Waiting& folder) {
    UniqueFd fd = OpenBelow(folder.path);
    struct stat info {};
    if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
      bundle_.LeftOut(fmt::format("{}: what is in it: {}", NameOf(folder.path), Why(errno)));
      return absl::OkStatus();
    }
    if (info.st_dev != device_) {
      bundle_.LeftOut(
          fmt::format("{}: what is in it is on another file system", NameOf(folder.path)));
      return absl::OkStatus();
    }
    const int raw = fd.release();
    const Dir dir(::fdopendir(raw));
    if (dir == nullptr) {
      ::close(raw);
      bundle_.LeftOut(fmt::format("{}: cannot be listed", NameOf(folder.path)));
      return absl::OkStatus();
    }
    // Below the top no folder takes more than half of what is left.
    const uint64_t left = bounds_.max_entries - std::min(entries_, bounds_.max_entries);
    const uint64_t share = folder.path.empty() ? left : std::max<uint64_t>(left / 2, 1);
    uint64_t listed = 0;
    while (bundle_.Open()) {
      errno = 0;
      const dirent* const entry = ::readdir(dir.get());
      if (entry == nullptr) {
        if (errno != 0) {
          bundle_.LeftOut(fmt::format("{}: the rest cannot be listed", NameOf(folder.path)));
        }
        return absl::OkStatus();
      }
      const std::string_view child = entry->d_name;
      if (child == "." || child == "..") {
        continue;
      }
      if (listed >= share) {
        told_ = told_ || folder.path.empty();
        TellFull(NameOf(folder.path));
        return absl::OkStatus();
      }
      ++listed;
      ++entries_;
      RETURN_IF_ERROR(Visit(::dirfd(dir.get()), folder, std::string(child)));
    }
    return absl::OkStatus();
  }

  absl::Status Visit(int parent, const Waiting& folder, const std::string& child) {
    const std::string path = folder.path.empty() ? child : folder.path + "/" + child;
    const std::string name = NameOf(path);
    struct stat info {};
    if (::fstatat(parent, child.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      bundle_.LeftOut(fmt::format("{}: {}", name, Why(errno)));
      return absl::OkStatus();
    }
    if (info.st_dev != device_) {
      bundle_.LeftOut(fmt::format("{}: is on another file system", name));
      return absl::OkStatus();
    }
    switch (info.st_mode & S_IFMT) {
      case S_IFDIR:
        RETURN_IF_ERROR(bundle_.AddOther(name, info, ""));
        if (folder.depth >= bounds_.max_depth || waiting_bytes_ + path.size() > kMaxWaitingBytes) {
          bundle_.LeftOut(fmt::format("{}: what is in it, as it lies deeper than {} folders",
                                      name.substr(0, 512), bounds_.max_depth));
          return absl::OkStatus();
        }
        waiting_bytes_ += path.size();
        waiting_.push_back({.path = path, .depth = folder.depth + 1});
        return absl::OkStatus();
      case S_IFREG:
        return VisitFile(parent, child, name);
      case S_IFLNK: {
        std::string target(4096, '\0');
        const ssize_t size = ::readlinkat(parent, child.c_str(), target.data(), target.size());
        target.resize(size < 0 ? 0 : static_cast<size_t>(size));
        return bundle_.AddOther(name, info, target);
      }
      case S_IFSOCK:
        bundle_.LeftOut(fmt::format("{}: a socket", name));
        return absl::OkStatus();
      default:
        return bundle_.AddOther(name, info, "");
    }
  }

  absl::Status VisitFile(int parent, const std::string& child, const std::string& name) {
    const UniqueFd fd =
        OpenAt(parent, child.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat info {};
    if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
      bundle_.LeftOut(fmt::format("{}: {}", name,
                                  errno == EAGAIN ? "a process holds a lease on it" : Why(errno)));
      return absl::OkStatus();
    }
    // It may have been swapped since it was looked at.
    if (!S_ISREG(info.st_mode) || info.st_dev != device_) {
      bundle_.LeftOut(fmt::format("{}: is no file any more", name));
      return absl::OkStatus();
    }
    return bundle_.AddFile(name, info, fd.get());
  }

  const TreeBounds& bounds_;
  BundleWriter& bundle_;
  dev_t device_ = 0;
  std::string name_;
  UniqueFd top_;
  uint64_t entries_ = 0;
  bool told_ = false;
  std::deque<Waiting> waiting_;
  size_t waiting_bytes_ = 0;
};

}  // namespace

absl::StatusOr<UniqueFd> OpenInProcess(int pid, const std::string& container,
                                       const std::string& path) {
  const std::string proc = fmt::format("/proc/{}", pid);
  // One open folder of /proc stands for one process: it goes stale when that ends.
  const UniqueFd process(::open(proc.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!process.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", proc));
  }
  const UniqueFd root(::openat(process.get(), "root", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}/root'", proc));
  }
  if (!container.empty()) {
    std::string groups(16384, '\0');
    const UniqueFd file(::openat(process.get(), "cgroup", O_RDONLY | O_CLOEXEC));
    const ssize_t got = file.valid() ? ::read(file.get(), groups.data(), groups.size()) : -1;
    groups.resize(got < 0 ? 0 : static_cast<size_t>(got));
    if (groups.find(container) == std::string::npos) {
      return absl::NotFoundError(fmt::format("process {} is not container '{}'", pid, container));
    }
  }
  const std::string inside = path.substr(std::min(path.find_first_not_of('/'), path.size()));
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  UniqueFd fd(static_cast<int>(::syscall(
      SYS_openat2, root.get(), inside.empty() ? "." : inside.c_str(), &how, sizeof(how))));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}' in the container", path));
  }
  return fd;
}

absl::StatusOr<UniqueFd> OpenFolder(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd named, OpenNamed(path));
  struct stat info {};
  if (::fstat(named.get(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("'{}' is no folder", path));
  }
  return OpenToRead(named.get());
}

absl::Status CaptureTree(UniqueFd folder, const std::string& name, const TreeBounds& bounds,
                         BundleWriter& bundle) {
  return Walk(bounds, bundle).Run(std::move(folder), name);
}

}  // namespace creel
