#include "agent-shim/files/grep.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <re2/re2.h>
#include <sys/stat.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "agent-shim/files/glob_pattern.h"
#include "agent-shim/files/kernel.h"
#include "agent-shim/files/line_search.h"
#include "agent-shim/files/paths.h"
#include "agent-shim/files/tree_walk.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr int64_t kRegexMemory = int64_t{4} * 1024 * 1024;
constexpr size_t kMaxPattern = size_t{16} * 1024;
constexpr uint32_t kMaxContext = 20;
constexpr uint64_t kDefaultMatches = 1'000;
constexpr int kBatchMatches = 512;
constexpr size_t kBatchBytes = size_t{64} * 1024;
constexpr size_t kMatchBytes = 24;
// Files opened or blocks searched before other calls get their turn.
constexpr int kRoundsPerStep = 500;

absl::StatusOr<std::unique_ptr<RE2>> Compile(const v1::GrepArgs& args) {
  if (args.pattern().empty()) {
    return absl::InvalidArgumentError("the pattern is empty");
  }
  if (args.pattern().size() > kMaxPattern) {
    return absl::InvalidArgumentError(
        fmt::format("the pattern is longer than {} bytes", kMaxPattern));
  }
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kRegexMemory);
  options.set_case_sensitive(!args.ignore_case());
  // No match reaches over the end of a line, so that one search can go over many lines.
  options.set_never_nl(true);
  const std::string pattern =
      args.literal() ? RE2::QuoteMeta(args.pattern()) : fmt::format("(?m:{})", args.pattern());
  // Checked as it was given: `a)(b` would become well formed inside the group.
  if (!args.literal()) {
    const RE2 given(args.pattern(), options);
    if (!given.ok()) {
      return absl::InvalidArgumentError(fmt::format("malformed pattern: {}", given.error()));
    }
  }
  auto compiled = std::make_unique<RE2>(pattern, options);
  if (!compiled->ok()) {
    return absl::InvalidArgumentError(fmt::format("malformed pattern: {}", compiled->error()));
  }
  return compiled;
}

class Grepper final : public Producer<v1::GrepBatch> {
 public:
  Grepper(std::unique_ptr<RE2> pattern, std::optional<GlobPattern> glob, const v1::GrepArgs& args)
      : pattern_(std::move(pattern)),
        glob_(std::move(glob)),
        context_(std::min(args.context(), kMaxContext)),
        left_(args.max_matches() == 0 ? kDefaultMatches : args.max_matches()) {}

  void SearchFile(UniqueFd fd, std::string path) {
    search_.emplace(std::move(fd), *pattern_, std::move(path), context_);
  }
  void SearchTree(TreeWalk walk) { walk_.emplace(std::move(walk)); }

  absl::StatusOr<Produced> Next(v1::GrepBatch& out, const Cancel& cancel) override {
    out.Clear();
    size_t bytes = 0;
    for (int round = 0; round < kRoundsPerStep; ++round) {
      while (!found_.empty()) {
        if (out.matches_size() >= kBatchMatches || bytes >= kBatchBytes) {
          return Produced::kMessage;
        }
        bytes += found_.front().path().size() + found_.front().line().size() + kMatchBytes;
        *out.add_matches() = std::move(found_.front());
        found_.pop_front();
      }
      RETURN_IF_ERROR(cancel.Check());
      if (!search_) {
        ASSIGN_OR_RETURN(const bool more, NextFile(cancel));
        if (!more) {
          out.set_truncated(cut_);
          out.set_files_skipped(skipped_);
          return Produced::kLastMessage;
        }
        continue;
      }
      RETURN_IF_ERROR(search_->Step(found_, left_));
      if (search_->done()) {
        skipped_ += search_->binary() ? 1 : 0;
        if (search_->cut()) {
          cut_ = true;
          walk_.reset();
        }
        search_.reset();
      }
    }
    return out.matches_size() > 0 ? Produced::kMessage : Produced::kNothingYet;
  }

 private:
  // Takes one entry of the tree. False at the end.
  absl::StatusOr<bool> NextFile(const Cancel& cancel) {
    if (!walk_) {
      return false;
    }
    ASSIGN_OR_RETURN(const TreeWalk::Event event, walk_->Next(cancel));
    if (event == TreeWalk::Event::kEnd) {
      return false;
    }
    const TreeWalk::Entry& entry = walk_->entry();
    if (event == TreeWalk::Event::kLeave) {
      return true;
    }
    if (S_ISDIR(entry.stat.st_mode)) {
      if (entry.name == ".git") {
        return true;
      }
      const absl::Status entered =
          entry.path.size() > kMaxTreePath ? absl::OutOfRangeError("") : walk_->Descend();
      cut_ =
          cut_ || !(entered.ok() || absl::IsPermissionDenied(entered) || absl::IsNotFound(entered));
      return true;
    }
    if (!S_ISREG(entry.stat.st_mode) || (glob_ && !glob_->MatchesPath(entry.path))) {
      return true;
    }
    struct stat stat {};
    UniqueFd fd = TryOpenRegular(walk_->dir_fd(), entry.name, &stat);
    if (!fd.valid()) {
      ++skipped_;
      return true;
    }
    SearchFile(std::move(fd), entry.path);
    return true;
  }

  const std::unique_ptr<RE2> pattern_;
  const std::optional<GlobPattern> glob_;
  const uint32_t context_;
  uint64_t left_;
  std::optional<TreeWalk> walk_;
  std::optional<LineSearch> search_;
  std::deque<v1::GrepMatch> found_;
  uint64_t skipped_ = 0;
  bool cut_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Producer<v1::GrepBatch>>> Grep(const FileRoots& roots,
                                                              const v1::GrepArgs& args) {
  ASSIGN_OR_RETURN(std::unique_ptr<RE2> pattern, Compile(args));
  std::optional<GlobPattern> glob;
  if (!args.glob().empty()) {
    ASSIGN_OR_RETURN(glob, GlobPattern::Parse(args.glob(), /*hidden=*/true));
  }
  const std::string& path = args.path().empty() ? roots.workspace() : args.path();
  ASSIGN_OR_RETURN(const Place place, roots.Resolve(path, LastLink::kFollow));
  auto grepper = std::make_unique<Grepper>(std::move(pattern), std::move(glob), args);
  struct stat stat {};
  if (fstatat(place.dir.get(), place.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    return PathError(errno, "search", path);
  }
  if (S_ISDIR(stat.st_mode)) {
    ASSIGN_OR_RETURN(UniqueFd fd, OpenDirectory(place.dir.get(), place.name, path));
    ASSIGN_OR_RETURN(TreeWalk walk, TreeWalk::Start(std::move(fd), {}));
    grepper->SearchTree(std::move(walk));
  } else {
    ASSIGN_OR_RETURN(UniqueFd fd, OpenRegular(place.dir.get(), place.name, O_RDONLY, path, &stat));
    grepper->SearchFile(std::move(fd), roots.NameOf(path));
  }
  return grepper;
}

}  // namespace creel::shim
