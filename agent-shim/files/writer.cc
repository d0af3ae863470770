#include "agent-shim/files/writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr mode_t kDefaultMode = 0644;
constexpr mode_t kUmask = 022;
// Set-id bits are never written.
constexpr mode_t kModeBits = 0777;
constexpr size_t kHashBytes = 32;
constexpr size_t kBlockBytes = size_t{256} * 1024;
constexpr uint64_t kMaxEdit = uint64_t{64} * 1024 * 1024;

absl::Status Changed(std::string_view path) {
  return absl::AbortedError(fmt::format("{} has another content than expected", Quoted(path)));
}

absl::Status CheckHashLength(const std::string& expected) {
  if (!expected.empty() && expected.size() != kHashBytes) {
    return absl::InvalidArgumentError("expected_sha256 is not 32 bytes");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> HashOf(int fd, std::string_view path, const Cancel& cancel) {
  Sha256 hash;
  std::string block(kBlockBytes, '\0');
  uint64_t at = 0;
  while (true) {
    RETURN_IF_ERROR(cancel.Check());
    const ssize_t got = ReadAt(fd, block.data(), block.size(), at);
    if (got < 0) {
      return PathError(errno, "read", path);
    }
    if (got == 0) {
      return hash.Finish();
    }
    hash.Update(std::string_view(block).substr(0, static_cast<size_t>(got)));
    at += static_cast<uint64_t>(got);
  }
}

// kAborted unless what `place` names is still what `before` saw.
absl::Status CheckUnchanged(const Place& place, const struct stat& before, std::string_view path) {
  struct stat now {};
  if (fstatat(place.dir.get(), place.name.c_str(), &now, AT_SYMLINK_NOFOLLOW) != 0 ||
      !SameContent(now, before)) {
    return absl::AbortedError(fmt::format("{} was changed meanwhile", Quoted(path)));
  }
  return absl::OkStatus();
}

absl::Status CheckWritable(const Place& place, std::string_view path) {
  if (!WritableByUs(place.dir.get(), place.name)) {
    return PathError(EACCES, "write", path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileWriter>> FileWriter::Open(const FileRoots& roots,
                                                             const v1::WriteFileArgs& args,
                                                             const Cancel& cancel) {
  RETURN_IF_ERROR(CheckHashLength(args.expected_sha256()));
  // With `exclusive` a link counts as something that is there.
  const LastLink last = args.exclusive() ? LastLink::kKeep : LastLink::kFollow;
  absl::StatusOr<Place> place = args.make_parents() ? roots.ResolveMakingParents(args.path(), last)
                                                    : roots.Resolve(args.path(), last);
  RETURN_IF_ERROR(place.status());
  if (place->directory_wanted || place->name == ".") {
    return PathError(EISDIR, "write", args.path());
  }
  std::unique_ptr<FileWriter> writer(new FileWriter(*std::move(place), args));
  RETURN_IF_ERROR(writer->CheckPresent(cancel));
  if (args.append()) {
    RETURN_IF_ERROR(writer->OpenForAppend());
    return writer;
  }
  const mode_t wanted = args.mode() == 0 ? kDefaultMode : args.mode() & kModeBits & ~kUmask;
  const mode_t mode = writer->before_ ? writer->before_->st_mode & kModeBits : wanted;
  ASSIGN_OR_RETURN(ReplacementFile file,
                   ReplacementFile::Create(writer->place_.dir.get(), mode, args.path()));
  writer->replacement_.emplace(std::move(file));
  return writer;
}

absl::Status FileWriter::CheckPresent(const Cancel& cancel) {
  const std::string& path = args_.path();
  struct stat stat {};
  if (fstatat(place_.dir.get(), place_.name.c_str(), &stat, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT) {
      return PathError(errno, "write", path);
    }
    return args_.expected_sha256().empty() ? absl::OkStatus() : Changed(path);
  }
  if (args_.exclusive()) {
    return absl::AlreadyExistsError(fmt::format("{} is there already", Quoted(path)));
  }
  if (!S_ISREG(stat.st_mode)) {
    return absl::FailedPreconditionError(
        fmt::format("{} is {}", Quoted(path), KindName(stat.st_mode)));
  }
  RETURN_IF_ERROR(CheckWritable(place_, path));
  if (!args_.expected_sha256().empty()) {
    ASSIGN_OR_RETURN(const UniqueFd fd,
                     OpenRegular(place_.dir.get(), place_.name, O_RDONLY, path, &stat));
    ASSIGN_OR_RETURN(const std::string hash, HashOf(fd.get(), path, cancel));
    if (hash != args_.expected_sha256()) {
      return Changed(path);
    }
  }
  before_ = stat;
  return absl::OkStatus();
}

absl::Status FileWriter::OpenForAppend() {
  if (!before_) {
    const mode_t mode = args_.mode() == 0 ? kDefaultMode : args_.mode() & kModeBits & ~kUmask;
    append_.reset(openat(place_.dir.get(), place_.name.c_str(),
                         O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!append_.valid() || fchmod(append_.get(), mode) != 0) {
      return PathError(errno, "write", args_.path());
    }
    return absl::OkStatus();
  }
  struct stat stat {};
  ASSIGN_OR_RETURN(append_, OpenRegular(place_.dir.get(), place_.name, O_WRONLY | O_APPEND,
                                        args_.path(), &stat));
  if (!args_.expected_sha256().empty() && !SameContent(stat, *before_)) {
    return Changed(args_.path());
  }
  return absl::OkStatus();
}

absl::Status FileWriter::Append(std::string_view data) {
  if (append_.valid()) {
    const int error = WriteAll(append_.get(), data);
    return error == 0 ? absl::OkStatus() : PathError(error, "write", args_.path());
  }
  hash_.Update(data);
  return replacement_->Write(data);
}

absl::StatusOr<v1::WriteFileResult> FileWriter::Commit() {
  v1::WriteFileResult result;
  result.set_created(!before_);
  struct stat stat {};
  if (append_.valid()) {
    if (fstat(append_.get(), &stat) != 0) {
      return PathError(errno, "stat", args_.path());
    }
  } else {
    if (!args_.expected_sha256().empty()) {
      RETURN_IF_ERROR(CheckUnchanged(place_, *before_, args_.path()));
    }
    RETURN_IF_ERROR(replacement_->Commit(place_.name, args_.exclusive()));
    ASSIGN_OR_RETURN(stat, replacement_->Stat());
    result.set_sha256(hash_.Finish());
  }
  *result.mutable_info() = InfoOf(stat, args_.path());
  return result;
}

absl::StatusOr<v1::EditFileResult> EditFile(const FileRoots& roots, const v1::EditFileArgs& args,
                                            const Cancel& cancel) {
  const std::string& path = args.path();
  RETURN_IF_ERROR(CheckHashLength(args.expected_sha256()));
  if (args.old_text().empty()) {
    return absl::InvalidArgumentError("old_text is empty");
  }
  ASSIGN_OR_RETURN(const Place place, roots.Resolve(path, LastLink::kFollow));
  struct stat before {};
  ASSIGN_OR_RETURN(const UniqueFd fd,
                   OpenRegular(place.dir.get(), place.name, O_RDONLY, path, &before));
  RETURN_IF_ERROR(CheckWritable(place, path));
  const auto too_large = [&](uint64_t size) {
    return absl::FailedPreconditionError(fmt::format(
        "{} has or would have {} bytes; an edit takes at most {}", Quoted(path), size, kMaxEdit));
  };
  if (static_cast<uint64_t>(before.st_size) > kMaxEdit) {
    return too_large(static_cast<uint64_t>(before.st_size));
  }
  std::string text(static_cast<size_t>(before.st_size), '\0');
  const ssize_t got = ReadAt(fd.get(), text.data(), text.size(), 0);
  if (got < 0) {
    return PathError(errno, "read", path);
  }
  text.resize(static_cast<size_t>(got));
  if (!args.expected_sha256().empty()) {
    Sha256 hash;
    hash.Update(text);
    if (hash.Finish() != args.expected_sha256()) {
      return Changed(path);
    }
  }

  uint64_t matches = 0;
  for (size_t at = text.find(args.old_text()); at != std::string::npos;
       at = text.find(args.old_text(), at + args.old_text().size())) {
    ++matches;
  }
  if (matches == 0) {
    return absl::NotFoundError(
        fmt::format("no match: the text does not occur in {}", Quoted(path)));
  }
  if (matches > 1 && !args.replace_all()) {
    return absl::FailedPreconditionError(fmt::format(
        "the text occurs {} times in {}; give more of it, or replace all", matches, Quoted(path)));
  }
  const uint64_t size =
      text.size() - matches * args.old_text().size() + matches * args.new_text().size();
  if (size > kMaxEdit) {
    return too_large(size);
  }

  ASSIGN_OR_RETURN(ReplacementFile file,
                   ReplacementFile::Create(place.dir.get(), before.st_mode & kModeBits, path));
  Sha256 hash;
  // Pieces are collected into blocks: a million tiny matches are not a million system calls.
  std::string block;
  const auto put = [&](std::string_view piece) -> absl::Status {
    hash.Update(piece);
    if (block.size() + piece.size() > kBlockBytes) {
      RETURN_IF_ERROR(cancel.Check());
      RETURN_IF_ERROR(file.Write(block));
      block.clear();
    }
    if (piece.size() > kBlockBytes) {
      return file.Write(piece);
    }
    block += piece;
    return absl::OkStatus();
  };
  size_t from = 0;
  for (uint64_t i = 0; i < matches; ++i) {
    const size_t at = text.find(args.old_text(), from);
    RETURN_IF_ERROR(put(std::string_view(text).substr(from, at - from)));
    RETURN_IF_ERROR(put(args.new_text()));
    from = at + args.old_text().size();
  }
  RETURN_IF_ERROR(put(std::string_view(text).substr(from)));
  RETURN_IF_ERROR(file.Write(block));
  RETURN_IF_ERROR(cancel.Check());
  RETURN_IF_ERROR(CheckUnchanged(place, before, path));
  RETURN_IF_ERROR(file.Commit(place.name, /*no_replace=*/false));
  v1::EditFileResult result;
  result.set_matches(matches);
  result.set_sha256(hash.Finish());
  ASSIGN_OR_RETURN(const struct stat after, file.Stat());
  *result.mutable_info() = InfoOf(after, path);
  return result;
}

}  // namespace creel::shim
