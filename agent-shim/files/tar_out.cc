#include "agent-shim/files/tar_out.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "agent-shim/files/tar_format.h"
#include "agent-shim/files/tree_walk.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr size_t kPieceBytes = size_t{512} * 1024;
constexpr size_t kMaxName = 255;

class Packer final : public Producer<std::string> {
 public:
  Packer(Place place, std::string path, std::string name)
      : place_(std::move(place)), path_(std::move(path)), name_(std::move(name)) {}

  // Packs the top entry itself.
  absl::Status Start() {
    struct stat stat {};
    if (fstatat(place_.dir.get(), place_.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
      return PathError(errno, "pack", path_);
    }
    if (!S_ISREG(stat.st_mode) && !S_ISDIR(stat.st_mode) && !S_ISLNK(stat.st_mode)) {
      return absl::FailedPreconditionError(
          fmt::format("{} is {}", Quoted(path_), KindName(stat.st_mode)));
    }
    if (S_ISDIR(stat.st_mode)) {
      ASSIGN_OR_RETURN(UniqueFd fd, OpenDirectory(place_.dir.get(), place_.name, path_));
      ASSIGN_OR_RETURN(TreeWalk walk, TreeWalk::Start(std::move(fd), {}));
      walk_.emplace(std::move(walk));
    }
    return Add(place_.dir.get(), place_.name, "", stat);
  }

  absl::StatusOr<Produced> Next(std::string& out, const Cancel& cancel) override {
    out.clear();
    while (out.size() < kPieceBytes) {
      RETURN_IF_ERROR(cancel.Check());
      if (!header_.empty()) {
        out += std::exchange(header_, {});
      } else if (left_ > 0) {
        RETURN_IF_ERROR(AddContent(out));
      } else if (walk_) {
        RETURN_IF_ERROR(NextEntry(cancel));
      } else {
        out.append(2 * kTarBlock, '\0');
        return Produced::kLastMessage;
      }
    }
    return Produced::kMessage;
  }

 private:
  absl::Status NextEntry(const Cancel& cancel) {
    ASSIGN_OR_RETURN(const TreeWalk::Event event, walk_->Next(cancel));
    if (event == TreeWalk::Event::kEnd) {
      walk_.reset();
      return absl::OkStatus();
    }
    if (event == TreeWalk::Event::kLeave) {
      return absl::OkStatus();
    }
    const TreeWalk::Entry& entry = walk_->entry();
    if (entry.path.size() > kMaxTreePath) {
      return absl::FailedPreconditionError(
          fmt::format("{} holds paths of more than {} bytes", Quoted(path_), kMaxTreePath));
    }
    const int dir = walk_->dir_fd();
    const absl::Status added = Add(dir, entry.name, entry.path, entry.stat);
    if (absl::IsNotFound(added)) {
      // Removed meanwhile, as if it never was.
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(added);
    return S_ISDIR(entry.stat.st_mode) ? walk_->Descend() : absl::OkStatus();
  }

  // Makes the header for `name` in `dir`, and opens the content.
  absl::Status Add(int dir, const std::string& name, const std::string& below, struct stat stat) {
    TarHeader header{.name = JoinPath(name_, below)};
    switch (stat.st_mode & S_IFMT) {
      case S_IFREG: {
        ASSIGN_OR_RETURN(file_, OpenRegular(dir, name, O_RDONLY, JoinPath(path_, below), &stat));
        header.size = static_cast<uint64_t>(stat.st_size);
        at_ = 0;
        size_ = header.size;
        left_ = header.size + TarPadding(header.size);
        break;
      }
      case S_IFDIR:
        header.kind = TarKind::kDirectory;
        header.name += '/';
        break;
      case S_IFLNK:
        header.kind = TarKind::kLink;
        header.link = ReadLink(dir, name);
        break;
      default:
        return absl::OkStatus();
    }
    header.mode = stat.st_mode & 0777U;
    header.uid = stat.st_uid;
    header.gid = stat.st_gid;
    header.modified_at = stat.st_mtim.tv_sec;
    header_ = EncodeTarHeader(header);
    return absl::OkStatus();
  }

  absl::Status AddContent(std::string& out) {
    const size_t had = out.size();
    const auto take = static_cast<size_t>(std::min<uint64_t>(left_, kPieceBytes - had));
    // Zeros, where the file has become shorter and behind its end.
    out.resize(had + take, '\0');
    if (at_ < size_) {
      const auto wanted = static_cast<size_t>(std::min<uint64_t>(take, size_ - at_));
      const ssize_t got = ReadAt(file_.get(), out.data() + had, wanted, at_);
      if (got < 0) {
        return PathError(errno, "read a file in", path_);
      }
    }
    at_ += take;
    left_ -= take;
    return absl::OkStatus();
  }

  const Place place_;
  const std::string path_;
  // Of the top entry in the archive.
  const std::string name_;
  std::optional<TreeWalk> walk_;
  // Made, not yet sent.
  std::string header_;
  // The content that is being sent: where, its size as told, and what is left with its padding.
  UniqueFd file_;
  uint64_t at_ = 0;
  uint64_t size_ = 0;
  uint64_t left_ = 0;
};

}  // namespace

absl::Status CheckRootName(std::string_view name) {
  if (name == "." || name == ".." || name.size() > kMaxName ||
      name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError(
        fmt::format("rename_root must be one name, not {}", Quoted(name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Producer<std::string>>> TarOut(const FileRoots& roots,
                                                              const v1::TarOutArgs& args) {
  RETURN_IF_ERROR(CheckRootName(args.rename_root()));
  ASSIGN_OR_RETURN(Place place,
                   roots.Resolve(args.path(), args.path().empty() || args.path().back() != '/'
                                                  ? LastLink::kKeep
                                                  : LastLink::kFollow));
  std::string name = args.rename_root().empty() ? roots.NameOf(args.path()) : args.rename_root();
  auto packer = std::make_unique<Packer>(std::move(place), args.path(), std::move(name));
  RETURN_IF_ERROR(packer->Start());
  return packer;
}

}  // namespace creel::shim
