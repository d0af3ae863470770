#include "agent-shim/files/tar_in.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "agent-shim/files/tar_out.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

// Of a pax header or GNU long name; real ones hold a path or two.
constexpr uint64_t kMaxMeta = uint64_t{64} * 1024;
constexpr size_t kMaxParts = 2000;
constexpr mode_t kModeBits = 0777;
constexpr mode_t kParentMode = 0755;

absl::Status NotTar(std::string_view why) {
  return absl::InvalidArgumentError(fmt::format("this is no tar stream: {}", why));
}

bool IsWayBlocked(int error) { return error == ELOOP || error == ENOTDIR; }

// Removes what a file or link is to take the place of; a directory stays.
bool MakeRoom(int dir, const std::string& name) {
  return unlinkat(dir, name.c_str(), 0) == 0 || errno == ENOENT;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TarUnpacker>> TarUnpacker::Open(const FileRoots& roots,
                                                               const v1::TarInArgs& args) {
  RETURN_IF_ERROR(CheckRootName(args.rename_root()));
  const absl::StatusOr<Place> place =
      args.make_parents() ? roots.ResolveMakingParents(args.path(), LastLink::kFollow)
                          : roots.Resolve(args.path(), LastLink::kFollow);
  RETURN_IF_ERROR(place.status());
  if (args.make_parents() && place->name != ".") {
    RETURN_IF_ERROR(
        MakeDirectoryAt(place->dir.get(), place->name, kParentMode, args.path()).status());
  }
  ASSIGN_OR_RETURN(UniqueFd top, OpenDirectory(place->dir.get(), place->name, args.path()));
  return std::unique_ptr<TarUnpacker>(new TarUnpacker(std::move(top), args.rename_root()));
}

absl::Status TarUnpacker::Append(std::string_view data) {
  while (!data.empty()) {
    if (content_left_ > 0) {
      const std::string_view piece = data.substr(0, content_left_);
      RETURN_IF_ERROR(TakeContent(piece));
      data.remove_prefix(piece.size());
      content_left_ -= piece.size();
      if (content_left_ == 0) {
        RETURN_IF_ERROR(EndContent());
      }
      continue;
    }
    if (padding_left_ > 0) {
      const size_t skip = std::min<uint64_t>(padding_left_, data.size());
      data.remove_prefix(skip);
      padding_left_ -= skip;
      continue;
    }
    if (zero_blocks_ >= 2) {
      // Archives are filled up to a multiple of their record size.
      return absl::OkStatus();
    }
    const size_t take = std::min(kTarBlock - partial_.size(), data.size());
    partial_ += data.substr(0, take);
    data.remove_prefix(take);
    if (partial_.size() == kTarBlock) {
      RETURN_IF_ERROR(TakeBlock(partial_));
      partial_.clear();
    }
  }
  return absl::OkStatus();
}

absl::Status TarUnpacker::TakeBlock(std::string_view block) {
  if (block.find_first_not_of('\0') == std::string_view::npos) {
    ++zero_blocks_;
    return absl::OkStatus();
  }
  if (zero_blocks_ > 0) {
    return NotTar("a lone block of zeros");
  }
  std::optional<TarHeader> header = DecodeTarHeader(block);
  if (!header) {
    return NotTar("a header with a wrong checksum or number");
  }
  switch (header->kind) {
    case TarKind::kPax:
    case TarKind::kPaxGlobal:
    case TarKind::kLongName:
    case TarKind::kLongLink:
      if (header->size > kMaxMeta) {
        return NotTar(fmt::format("an extended header of {} bytes", header->size));
      }
      meta_ = header->kind;
      meta_text_.clear();
      content_left_ = header->size;
      padding_left_ = TarPadding(header->size);
      return header->size == 0 ? EndContent() : absl::OkStatus();
    default:
      return BeginEntry(*std::move(header));
  }
}

absl::StatusOr<std::optional<std::vector<std::string>>> TarUnpacker::PartsOf(
    const std::string& name) {
  std::vector<std::string> parts = Components(name);
  const bool outside = name.empty() || name.front() == '/' || parts.size() > kMaxParts ||
                       std::find(parts.begin(), parts.end(), "..") != parts.end();
  if (outside) {
    return std::nullopt;
  }
  if (!rename_root_.empty() && !parts.empty()) {
    if (!only_root_.empty() && only_root_ != parts.front()) {
      return absl::InvalidArgumentError(
          fmt::format("the archive holds {} beside {}, but rename_root allows one top entry",
                      Quoted(parts.front()), Quoted(only_root_)));
    }
    only_root_ = std::exchange(parts.front(), rename_root_);
  }
  return parts;
}

absl::StatusOr<int> TarUnpacker::ParentOf(const std::vector<std::string>& parts) {
  std::string path;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    path = JoinPath(path, parts[i]);
  }
  if (path.empty()) {
    return top_.get();
  }
  if (parent_.valid() && path == parent_path_) {
    return parent_.get();
  }
  UniqueFd at;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const int from = at.valid() ? at.get() : top_.get();
    constexpr int kFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    UniqueFd next(openat(from, parts[i].c_str(), kFlags));
    if (!next.valid() && errno == ENOENT) {
      RETURN_IF_ERROR(MakeDirectoryAt(from, parts[i], kParentMode, path).status());
      next.reset(openat(from, parts[i].c_str(), kFlags));
    }
    if (!next.valid()) {
      return IsWayBlocked(errno) ? absl::StatusOr<int>(-1) : PathError(errno, "unpack", path);
    }
    at = std::move(next);
  }
  parent_ = std::move(at);
  parent_path_ = path;
  return parent_.get();
}

absl::Status TarUnpacker::BeginEntry(TarHeader header) {
  if (!long_name_.empty()) {
    header.name = std::exchange(long_name_, {});
  }
  if (!long_link_.empty()) {
    header.link = std::exchange(long_link_, {});
  }
  if (!ApplyPaxRecords(std::exchange(pax_, {}), header)) {
    return NotTar("a malformed extended header");
  }
  const bool has_content = header.kind == TarKind::kFile || header.kind == TarKind::kOther;
  content_left_ = has_content ? header.size : 0;
  padding_left_ = TarPadding(content_left_);

  ASSIGN_OR_RETURN(const std::optional<std::vector<std::string>> parts, PartsOf(header.name));
  if (!parts || header.kind == TarKind::kOther) {
    Refuse();
    return absl::OkStatus();
  }
  if (parts->empty()) {
    // "./", the directory itself.
    if (header.kind != TarKind::kDirectory) {
      Refuse();
    }
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const int dir, ParentOf(*parts));
  if (dir < 0) {
    Refuse();
    return absl::OkStatus();
  }
  const std::string& name = parts->back();
  switch (header.kind) {
    case TarKind::kDirectory: {
      // Passable for us while it is filled.
      ASSIGN_OR_RETURN(const bool made,
                       MakeDirectoryAt(dir, name, (header.mode & kModeBits) | 0700U, header.name));
      struct stat stat {};
      if (!made &&
          (fstatat(dir, name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(stat.st_mode))) {
        Refuse();
        return absl::OkStatus();
      }
      Count();
      return absl::OkStatus();
    }
    case TarKind::kLink:
      // Where it points is of no matter: whoever follows it is confined again.
      if (header.link.empty() || header.link.size() > kMaxPath || !MakeRoom(dir, name)) {
        Refuse();
        return absl::OkStatus();
      }
      if (symlinkat(header.link.c_str(), dir, name.c_str()) != 0) {
        return PathError(errno, "unpack", header.name);
      }
      Count();
      return absl::OkStatus();
    case TarKind::kHardLink: {
      // ParentOf may close `dir` when it finds another directory.
      const UniqueFd here(fcntl(dir, F_DUPFD_CLOEXEC, 0));
      ASSIGN_OR_RETURN(const std::optional<std::vector<std::string>> target, PartsOf(header.link));
      if (!here.valid() || !target || target->empty() || *target == *parts) {
        Refuse();
        return absl::OkStatus();
      }
      ASSIGN_OR_RETURN(const int target_dir, ParentOf(*target));
      struct stat stat {};
      // linkat does not follow the last part, and this one has to be a file.
      if (target_dir < 0 ||
          fstatat(target_dir, target->back().c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0 ||
          !S_ISREG(stat.st_mode) || !MakeRoom(here.get(), name) ||
          linkat(target_dir, target->back().c_str(), here.get(), name.c_str(), 0) != 0) {
        Refuse();
        return absl::OkStatus();
      }
      Count();
      return absl::OkStatus();
    }
    default:
      return BeginFile(header, dir, name);
  }
}

absl::Status TarUnpacker::BeginFile(const TarHeader& header, int dir, const std::string& name) {
  if (!MakeRoom(dir, name)) {
    Refuse();
    return absl::OkStatus();
  }
  // O_EXCL follows no link and opens nothing that is there.
  file_.reset(openat(dir, name.c_str(),
                     O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600));
  if (!file_.valid() || fchmod(file_.get(), header.mode & kModeBits) != 0) {
    return PathError(errno, "unpack", header.name);
  }
  modified_at_ = header.modified_at;
  Count();
  return content_left_ == 0 ? EndContent() : absl::OkStatus();
}

absl::Status TarUnpacker::TakeContent(std::string_view data) {
  if (meta_) {
    meta_text_ += data;
    return absl::OkStatus();
  }
  if (!file_.valid()) {
    return absl::OkStatus();
  }
  const int error = WriteAll(file_.get(), data);
  if (error != 0) {
    return ErrnoStatus(error, "unpack");
  }
  result_.set_bytes(result_.bytes() + data.size());
  return absl::OkStatus();
}

absl::Status TarUnpacker::EndContent() {
  if (meta_) {
    const TarKind kind = *std::exchange(meta_, std::nullopt);
    if (kind == TarKind::kPax) {
      pax_ = std::move(meta_text_);
    } else if (kind != TarKind::kPaxGlobal) {
      // Ends in a NUL.
      meta_text_.resize(std::min(meta_text_.find('\0'), meta_text_.size()));
      (kind == TarKind::kLongName ? long_name_ : long_link_) = std::move(meta_text_);
    }
    meta_text_.clear();
    return absl::OkStatus();
  }
  if (file_.valid()) {
    const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT},
                               {.tv_sec = modified_at_, .tv_nsec = 0}};
    // A time is not worth a failure.
    (void)futimens(file_.get(), times);
    file_.reset();
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::TarInResult> TarUnpacker::Finish() {
  if (content_left_ > 0 || padding_left_ > 0 || !partial_.empty()) {
    return NotTar("it ends within an entry");
  }
  if (zero_blocks_ == 0) {
    return NotTar("it ends without its end mark");
  }
  return result_;
}

}  // namespace creel::shim
