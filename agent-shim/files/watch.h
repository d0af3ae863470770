#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "agent-shim/files/identity.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// One Watch call, see shim.proto. Not thread-safe; needs the tool's identity.
class Watcher {
 public:
  static constexpr size_t kMaxDirectories = 4096;

  // `inotify` comes from MakeInotifyAs, in a thread that may still change its identity, so that the
  // instance and its watches count against the limits of the tool.
  //   kResourceExhausted  the tool's instances or watches are used up, or there are more than
  //                       kMaxDirectories directories
  static absl::StatusOr<std::unique_ptr<Watcher>> Open(const FileRoots& roots,
                                                       absl::StatusOr<UniqueFd> inotify,
                                                       const v1::WatchArgs& args,
                                                       const Cancel& cancel);

  // The next event; the first is READY. Waits until there is one, or `wake_fd` can be read: then
  // kCancelled. kNotFound once the watched directory itself is gone.
  absl::StatusOr<v1::WatchEvent> Next(int wake_fd, const Cancel& cancel);

 private:
  struct Moved {
    uint32_t cookie;
    std::string path;
    bool directory;
  };

  Watcher(UniqueFd inotify, UniqueFd top, bool recursive)
      : inotify_(std::move(inotify)), top_(std::move(top)), recursive_(recursive) {}

  absl::Status AddDirectory(int fd, const std::string& path);
  // Watches `path` and all below, and tells of what is there already if `tell`.
  absl::Status AddTree(const std::string& path, bool tell, const Cancel& cancel);
  absl::Status ReadEvents(const Cancel& cancel);
  absl::Status Take(uint32_t mask, int watch, uint32_t cookie, const std::string& name,
                    const Cancel& cancel);
  // A directory that was renamed takes the paths below it along.
  void RenameTree(const std::string& from, const std::string& to);
  void ForgetTree(const std::string& path);
  void Tell(v1::WatchKind kind, std::string path, std::string old_path = {});
  // A name that left without arriving anywhere we watch.
  void FlushMoved();

  const UniqueFd inotify_;
  const UniqueFd top_;
  const bool recursive_;
  // The directory of each watch, relative to the top.
  std::map<int, std::string> directories_;
  std::optional<Moved> moved_;
  std::deque<v1::WatchEvent> events_;
  bool gone_ = false;
};

}  // namespace creel::shim
