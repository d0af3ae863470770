#include "agent-shim/files/list.h"

#include <sys/stat.h>

#include <optional>
#include <utility>
#include <vector>

#include "agent-shim/files/glob_pattern.h"
#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "agent-shim/files/tree_walk.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr uint64_t kDefaultListed = 100'000;
constexpr uint64_t kDefaultGlobbed = 10'000;
constexpr int kBatchEntries = 512;
constexpr size_t kBatchBytes = size_t{64} * 1024;
// What the fixed fields of an entry come to on the wire.
constexpr size_t kEntryBytes = 48;
// Entries looked at before other calls get their turn.
constexpr int kVisitsPerStep = 20'000;

class Lister final : public Producer<v1::FileBatch> {
 public:
  Lister(TreeWalk walk, bool recursive, std::optional<GlobPattern> glob, uint64_t max_entries)
      : walk_(std::move(walk)), recursive_(recursive), glob_(std::move(glob)), left_(max_entries) {
    if (glob_) {
      progress_.push_back(glob_->Start());
    }
  }

  absl::StatusOr<Produced> Next(v1::FileBatch& out, const Cancel& cancel) override {
    out.Clear();
    size_t bytes = 0;
    for (int visits = 0; visits < kVisitsPerStep; ++visits) {
      if (out.entries_size() >= kBatchEntries || bytes >= kBatchBytes) {
        return Produced::kMessage;
      }
      ASSIGN_OR_RETURN(const TreeWalk::Event event, walk_.Next(cancel));
      if (event == TreeWalk::Event::kEnd) {
        out.set_truncated(cut_);
        return Produced::kLastMessage;
      }
      if (event == TreeWalk::Event::kLeave) {
        if (glob_) {
          progress_.pop_back();
        }
        continue;
      }
      const TreeWalk::Entry& entry = walk_.entry();
      const GlobPattern::Progress progress =
          glob_ ? glob_->Step(progress_.back(), entry.name) : GlobPattern::Progress{};
      if (!glob_ || glob_->Matches(progress)) {
        if (left_ == 0) {
          out.set_truncated(true);
          return Produced::kLastMessage;
        }
        --left_;
        v1::FileInfo& info = *out.add_entries();
        info = InfoOf(entry.stat, entry.path);
        if (S_ISLNK(entry.stat.st_mode)) {
          info.set_link_target(ReadLink(walk_.dir_fd(), entry.name));
        }
        bytes += entry.path.size() + info.link_target().size() + kEntryBytes;
      }
      const bool enter = glob_ ? glob_->MayMatchBelow(progress) : recursive_;
      if (S_ISDIR(entry.stat.st_mode) && enter) {
        // Deeper than paths are told, the list is cut; what may not be read is passed over.
        if (entry.path.size() > kMaxTreePath) {
          cut_ = true;
          continue;
        }
        const absl::Status entered = walk_.Descend();
        if (entered.ok() && glob_) {
          progress_.push_back(progress);
        }
        cut_ = cut_ ||
               !(entered.ok() || absl::IsPermissionDenied(entered) || absl::IsNotFound(entered));
      }
    }
    return out.entries_size() > 0 ? Produced::kMessage : Produced::kNothingYet;
  }

 private:
  TreeWalk walk_;
  const bool recursive_;
  const std::optional<GlobPattern> glob_;
  // For the top directory and each one below that the walk is in.
  std::vector<GlobPattern::Progress> progress_;
  uint64_t left_;
  bool cut_ = false;
};

absl::StatusOr<TreeWalk> WalkFrom(const FileRoots& roots, const std::string& path) {
  ASSIGN_OR_RETURN(const Place place, roots.Resolve(path, LastLink::kFollow));
  ASSIGN_OR_RETURN(UniqueFd fd, OpenDirectory(place.dir.get(), place.name, path));
  return TreeWalk::Start(std::move(fd), {});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Producer<v1::FileBatch>>> ListDirectory(
    const FileRoots& roots, const v1::ListDirectoryArgs& args) {
  ASSIGN_OR_RETURN(TreeWalk walk, WalkFrom(roots, args.path()));
  return std::make_unique<Lister>(std::move(walk), args.recursive(), std::nullopt,
                                  args.max_entries() == 0 ? kDefaultListed : args.max_entries());
}

absl::StatusOr<std::unique_ptr<Producer<v1::FileBatch>>> Glob(const FileRoots& roots,
                                                              const v1::GlobArgs& args) {
  ASSIGN_OR_RETURN(GlobPattern pattern, GlobPattern::Parse(args.pattern(), args.hidden()));
  ASSIGN_OR_RETURN(TreeWalk walk,
                   WalkFrom(roots, args.path().empty() ? roots.workspace() : args.path()));
  return std::make_unique<Lister>(std::move(walk), true, std::move(pattern),
                                  args.max_entries() == 0 ? kDefaultGlobbed : args.max_entries());
}

}  // namespace creel::shim
