#pragma once

#include <sys/stat.h>

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// Reads the entries of one directory straight from the kernel, so that it can stop, be closed, and
// go on later from where it was.
class DirReader {
 public:
  explicit DirReader(UniqueFd fd) : fd_(std::move(fd)) {}
  // The next name, `.` and `..` left out; empty at the end. The view holds until the next call.
  absl::StatusOr<std::string_view> Next();
  [[nodiscard]] int fd() const { return fd_.get(); }
  // Gives up descriptor and buffer; Resume() continues, or starts over if `rewind`.
  void Suspend();
  absl::Status Resume(UniqueFd fd, bool rewind);

 private:
  UniqueFd fd_;
  std::string buffer_;
  size_t position_ = 0;
  size_t filled_ = 0;
  // The kernel's mark of the place after the last name given out.
  int64_t offset_ = 0;
};

// Walks a directory tree depth first, one entry at a time, without recursion and with a bounded
// number of descriptors, however deep the tree. Follows no link. A directory that is moved away
// while the walk is below it ends the walk: the way back up is taken only to the very directory
// that it came from.
class TreeWalk {
 public:
  struct Options {
    // Entries are removed as the walk goes.
    bool removing = false;
    // Without, `path` of an entry is its name: the paths of a very deep tree are long to build.
    bool with_paths = true;
  };
  enum class Event {
    // `entry` names something in `dir_fd()`.
    kEntry,
    // All below a directory has been walked; `entry` names it in `dir_fd()`.
    kLeave,
    kEnd,
  };
  struct Entry {
    std::string name;
    // From the top, without a leading slash.
    std::string path;
    // Of the entry itself, not of what it points at. For kLeave: only what identifies it.
    struct stat stat {};
    // 0 for what lies in the top directory.
    size_t depth = 0;
  };

  // `top` is open for reading.
  static absl::StatusOr<TreeWalk> Start(UniqueFd top, Options options);

  absl::StatusOr<Event> Next(const Cancel& cancel);
  // Makes the next event the first entry of the directory just returned. If that fails the walk
  // goes on behind it.
  //   kFailedPrecondition  deeper than a walk may go; exchanged for something else
  absl::Status Descend();

  [[nodiscard]] const Entry& entry() const { return entry_; }
  // The directory that holds the entry.
  [[nodiscard]] int dir_fd() const { return frames_.back().reader.fd(); }

 private:
  struct Frame {
    DirReader reader;
    dev_t device;
    ino_t inode;
    std::string name;
    // How much of `path_` leads here.
    size_t path_length;
  };

  explicit TreeWalk(Options options) : options_(options) {}
  absl::Status Push(UniqueFd fd);
  absl::Status ReturnToParent();

  Options options_;
  std::deque<Frame> frames_;
  // How many of the last frames have their directory open.
  size_t open_frames_ = 0;
  std::string path_;
  Entry entry_;
};

}  // namespace creel::shim
