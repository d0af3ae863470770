#include "agent-shim/files/watch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "agent-shim/files/tree_walk.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr uint32_t kMask = IN_CREATE | IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_DELETE |
                           IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_ONLYDIR |
                           IN_EXCL_UNLINK;
constexpr size_t kBufferBytes = size_t{16} * 1024;
// The two halves of a rename come right after another, but may fall into two reads.
constexpr int kMoveWaitMs = 20;
// How often to look whether the watched directory is still there. The kernel does not tell while we
// hold it open, and open it has to be.
constexpr int kAliveMs = 1000;

bool IsBelow(const std::string& path, const std::string& directory) {
  return directory.empty() || path == directory ||
         (path.size() > directory.size() && path.compare(0, directory.size(), directory) == 0 &&
          path[directory.size()] == '/');
}

}  // namespace

absl::StatusOr<std::unique_ptr<Watcher>> Watcher::Open(const FileRoots& roots,
                                                       absl::StatusOr<UniqueFd> inotify,
                                                       const v1::WatchArgs& args,
                                                       const Cancel& cancel) {
  ASSIGN_OR_RETURN(const Place place, roots.Resolve(args.path(), LastLink::kFollow));
  ASSIGN_OR_RETURN(UniqueFd top, OpenDirectory(place.dir.get(), place.name, args.path()));
  RETURN_IF_ERROR(inotify.status());
  std::unique_ptr<Watcher> watcher(
      new Watcher(*std::move(inotify), std::move(top), args.recursive()));
  RETURN_IF_ERROR(watcher->AddTree("", /*tell=*/false, cancel));
  watcher->Tell(v1::WATCH_KIND_READY, "");
  return watcher;
}

absl::Status Watcher::AddDirectory(int fd, const std::string& path) {
  if (directories_.size() >= kMaxDirectories) {
    return absl::ResourceExhaustedError(
        fmt::format("more than {} directories to watch", kMaxDirectories));
  }
  // inotify takes a path only. This one leads to the open directory, whatever became of its name;
  // a process may always follow its own.
  const std::string name = fmt::format("/proc/self/fd/{}", fd);
  const int watch = inotify_add_watch(inotify_.get(), name.c_str(), kMask);
  if (watch < 0) {
    if (errno == ENOSPC) {
      return absl::ResourceExhaustedError("the sandbox's inotify watches are used up");
    }
    return PathError(errno, "watch", path);
  }
  directories_[watch] = path;
  return absl::OkStatus();
}

absl::Status Watcher::AddTree(const std::string& path, bool tell, const Cancel& cancel) {
  UniqueFd fd(path.empty() ? openat(top_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                           : OpenBeneath(top_.get(), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    // Gone again, or not for us to read: nothing that could be told.
    return path.empty() ? PathError(errno, "watch", path) : absl::OkStatus();
  }
  RETURN_IF_ERROR(AddDirectory(fd.get(), path));
  if (!recursive_) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(TreeWalk walk, TreeWalk::Start(std::move(fd), {}));
  while (true) {
    ASSIGN_OR_RETURN(const TreeWalk::Event event, walk.Next(cancel));
    if (event == TreeWalk::Event::kEnd) {
      return absl::OkStatus();
    }
    if (event == TreeWalk::Event::kLeave) {
      continue;
    }
    const TreeWalk::Entry& entry = walk.entry();
    const std::string below = JoinPath(path, entry.path);
    if (tell) {
      Tell(v1::WATCH_KIND_CREATED, below);
    }
    if (!S_ISDIR(entry.stat.st_mode) || below.size() > kMaxTreePath) {
      continue;
    }
    const absl::StatusOr<UniqueFd> child = OpenDirectory(walk.dir_fd(), entry.name, below);
    if (!child.ok()) {
      continue;
    }
    RETURN_IF_ERROR(AddDirectory(child->get(), below));
    (void)walk.Descend();
  }
}

void Watcher::Tell(v1::WatchKind kind, std::string path, std::string old_path) {
  // A file that is written to gives many events of which one is enough.
  if (kind == v1::WATCH_KIND_MODIFIED && !events_.empty() && events_.back().kind() == kind &&
      events_.back().path() == path) {
    return;
  }
  v1::WatchEvent& event = events_.emplace_back();
  event.set_kind(kind);
  event.set_path(std::move(path));
  event.set_old_path(std::move(old_path));
}

void Watcher::FlushMoved() {
  if (moved_) {
    const Moved moved = *std::exchange(moved_, std::nullopt);
    if (moved.directory) {
      ForgetTree(moved.path);
    }
    Tell(v1::WATCH_KIND_REMOVED, moved.path);
  }
}

void Watcher::RenameTree(const std::string& from, const std::string& to) {
  for (auto& [watch, path] : directories_) {
    if (!path.empty() && IsBelow(path, from)) {
      path = to + path.substr(from.size());
    }
  }
}

void Watcher::ForgetTree(const std::string& path) {
  std::vector<int> watches;
  for (const auto& [watch, directory] : directories_) {
    if (!directory.empty() && IsBelow(directory, path)) {
      watches.push_back(watch);
    }
  }
  for (const int watch : watches) {
    inotify_rm_watch(inotify_.get(), watch);
    directories_.erase(watch);
  }
}

absl::Status Watcher::Take(uint32_t mask, int watch, uint32_t cookie, const std::string& name,
                           const Cancel& cancel) {
  if ((mask & IN_Q_OVERFLOW) != 0) {
    FlushMoved();
    Tell(v1::WATCH_KIND_OVERFLOW, "");
    return absl::OkStatus();
  }
  const auto found = directories_.find(watch);
  if (found == directories_.end()) {
    return absl::OkStatus();
  }
  const std::string directory = found->second;
  if ((mask & (IN_IGNORED | IN_DELETE_SELF | IN_UNMOUNT)) != 0) {
    directories_.erase(found);
    gone_ = gone_ || directory.empty();
    return absl::OkStatus();
  }
  const std::string path = JoinPath(directory, name);
  const bool is_directory = (mask & IN_ISDIR) != 0;
  const bool arrived = moved_ && (mask & IN_MOVED_TO) != 0 && moved_->cookie == cookie;
  if (moved_ && !arrived) {
    FlushMoved();
  }
  if ((mask & IN_MOVED_FROM) != 0) {
    moved_ = Moved{.cookie = cookie, .path = path, .directory = is_directory};
  } else if (arrived) {
    const Moved moved = *std::exchange(moved_, std::nullopt);
    if (moved.directory) {
      RenameTree(moved.path, path);
    }
    Tell(v1::WATCH_KIND_MOVED, path, moved.path);
  } else if ((mask & (IN_CREATE | IN_MOVED_TO)) != 0) {
    Tell(v1::WATCH_KIND_CREATED, path);
    if (is_directory && recursive_) {
      return AddTree(path, /*tell=*/true, cancel);
    }
  } else if ((mask & IN_DELETE) != 0) {
    Tell(v1::WATCH_KIND_REMOVED, path);
  } else if (!name.empty()) {
    Tell(v1::WATCH_KIND_MODIFIED, path);
  }
  return absl::OkStatus();
}

absl::Status Watcher::ReadEvents(const Cancel& cancel) {
  alignas(inotify_event) char buffer[kBufferBytes];
  const ssize_t got = read(inotify_.get(), buffer, sizeof buffer);
  if (got < 0) {
    return errno == EAGAIN || errno == EINTR ? absl::OkStatus() : ErrnoStatus(errno, "inotify");
  }
  for (ssize_t at = 0; at < got;) {
    inotify_event event{};
    std::memcpy(&event, buffer + at, sizeof event);
    // The name is filled up with NULs.
    const std::string name(event.len > 0 ? buffer + at + sizeof event : "");
    RETURN_IF_ERROR(Take(event.mask, event.wd, event.cookie, name, cancel));
    at += static_cast<ssize_t>(sizeof event + event.len);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::WatchEvent> Watcher::Next(int wake_fd, const Cancel& cancel) {
  while (events_.empty()) {
    RETURN_IF_ERROR(cancel.Check());
    if (gone_) {
      return absl::NotFoundError("the watched directory was removed");
    }
    pollfd ready[2] = {{.fd = inotify_.get(), .events = POLLIN, .revents = 0},
                       {.fd = wake_fd, .events = POLLIN, .revents = 0}};
    const int count = poll(ready, 2, moved_ ? kMoveWaitMs : kAliveMs);
    if (count < 0 && errno != EINTR) {
      return ErrnoStatus(errno, "poll");
    }
    if (count == 0) {
      FlushMoved();
      struct stat stat {};
      gone_ = gone_ || fstat(top_.get(), &stat) != 0 || stat.st_nlink == 0;
    } else if (count > 0 && ready[1].revents != 0) {
      return absl::CancelledError("the call was cancelled");
    } else if (count > 0) {
      RETURN_IF_ERROR(ReadEvents(cancel));
    }
  }
  v1::WatchEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace creel::shim
