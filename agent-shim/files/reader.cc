#include "agent-shim/files/reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "agent-shim/files/kernel.h"
#include "agent-shim/files/paths.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

// Large enough that a chunk costs more to move than to ask for.
constexpr uint64_t kChunkBytes = uint64_t{512} * 1024;

class FileReader final : public Producer<v1::FileChunk> {
 public:
  FileReader(UniqueFd fd, v1::FileInfo info, uint64_t begin, uint64_t end)
      : fd_(std::move(fd)), info_(std::move(info)), at_(begin), end_(end) {}

  absl::StatusOr<Produced> Next(v1::FileChunk& out, const Cancel& cancel) override {
    RETURN_IF_ERROR(cancel.Check());
    if (first_) {
      *out.mutable_info() = info_;
      first_ = false;
    } else {
      out.clear_info();
    }
    std::string& data = *out.mutable_data();
    data.resize(std::min(kChunkBytes, end_ - at_));
    const ssize_t got = ReadAt(fd_.get(), data.data(), data.size(), at_);
    if (got < 0) {
      return PathError(errno, "read", info_.path());
    }
    at_ += static_cast<uint64_t>(got);
    if (static_cast<size_t>(got) < data.size()) {
      data.resize(static_cast<size_t>(got));
      return Produced::kLastMessage;
    }
    return at_ < end_ ? Produced::kMessage : Produced::kLastMessage;
  }

 private:
  const UniqueFd fd_;
  const v1::FileInfo info_;
  bool first_ = true;
  uint64_t at_;
  const uint64_t end_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Producer<v1::FileChunk>>> ReadFile(const FileRoots& roots,
                                                                  const v1::ReadFileArgs& args) {
  ASSIGN_OR_RETURN(const Place place, roots.Resolve(args.path(), LastLink::kFollow));
  if (place.directory_wanted) {
    return PathError(EISDIR, "read", args.path());
  }
  struct stat stat {};
  ASSIGN_OR_RETURN(UniqueFd fd,
                   OpenRegular(place.dir.get(), place.name, O_RDONLY, args.path(), &stat));
  const auto size = static_cast<uint64_t>(stat.st_size);
  if (args.max_size() > 0 && size > args.max_size()) {
    return absl::FailedPreconditionError(fmt::format("{} has {} bytes, more than the {} allowed",
                                                     Quoted(args.path()), size, args.max_size()));
  }
  const uint64_t begin = std::min(args.offset(), size);
  const uint64_t length = args.length() == 0 ? size - begin : std::min(args.length(), size - begin);
  posix_fadvise(fd.get(), static_cast<off_t>(begin), static_cast<off_t>(length),
                POSIX_FADV_SEQUENTIAL);
  return std::make_unique<FileReader>(std::move(fd), InfoOf(stat, args.path()), begin,
                                      begin + length);
}

}  // namespace creel::shim
