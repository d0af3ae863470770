#include "supervisor/audit/record_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>

namespace creel {
namespace {

constexpr std::string_view kPrefix = "record-";
constexpr std::string_view kSuffix = ".jsonl";
constexpr size_t kDay = 10;
constexpr size_t kPiece = 1u << 20;
constexpr size_t kMaxLine = 4u << 20;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

// The first record by the file's name; 0 if it is no name of ours.
uint64_t SeqOf(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix) ||
      name.size() < kPrefix.size() + kDay + 1 + 12 + kSuffix.size()) {
    return 0;
  }
  const std::string_view digits = name.substr(
      kPrefix.size() + kDay + 1, name.size() - kPrefix.size() - kDay - 1 - kSuffix.size());
  uint64_t seq = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), seq);
  return error == std::errc() && end == digits.data() + digits.size() ? seq : 0;
}

absl::Status WriteAll(int fd, std::string_view data, const std::string& path) {
  while (!data.empty()) {
    const ssize_t wrote = ::write(fd, data.data(), data.size());
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote <= 0) {
      return ErrnoStatus(errno, fmt::format("write '{}'", path));
    }
    data.remove_prefix(static_cast<size_t>(wrote));
  }
  return absl::OkStatus();
}

}  // namespace

std::string RecordFileName(std::chrono::system_clock::time_point day, uint64_t first_seq) {
  const time_t seconds = std::chrono::system_clock::to_time_t(day);
  struct tm utc {};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{}{:04}-{:02}-{:02}-{:012}{}", kPrefix, utc.tm_year + 1900, utc.tm_mon + 1,
                     utc.tm_mday, first_seq, kSuffix);
}

absl::StatusOr<std::vector<RecordFile>> ListRecordFiles(const std::string& directory) {
  const std::unique_ptr<DIR, CloseDir> dir(::opendir(directory.c_str()));
  if (dir == nullptr) {
    return ErrnoStatus(errno, fmt::format("open the record's folder '{}'", directory));
  }
  std::vector<RecordFile> files;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (const uint64_t seq = SeqOf(entry->d_name); seq != 0) {
      files.push_back({.path = fmt::format("{}/{}", directory, entry->d_name),
                       .name = entry->d_name,
                       .first_seq = seq});
    }
  }
  std::sort(files.begin(), files.end(), [](const RecordFile& a, const RecordFile& b) {
    return a.first_seq != b.first_seq ? a.first_seq < b.first_seq : a.name < b.name;
  });
  return files;
}

absl::StatusOr<std::string> ReadRecordFile(const std::string& path, size_t max_bytes) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", path));
  }
  std::string text(max_bytes + 1, '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + have, text.size() - have);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return ErrnoStatus(errno, fmt::format("read '{}'", path));
    }
    if (got == 0) {
      break;
    }
    have += static_cast<size_t>(got);
  }
  if (have > max_bytes) {
    return absl::ResourceExhaustedError(
        fmt::format("'{}' is longer than {} bytes", path, max_bytes));
  }
  text.resize(have);
  return text;
}

absl::Status WriteRecordFile(const std::string& path, std::string_view content) {
  const std::string fresh = path + ".new";
  const UniqueFd fd(
      ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", fresh));
  }
  absl::Status written = WriteAll(fd.get(), content, fresh);
  if (written.ok() && (::fsync(fd.get()) != 0 || ::rename(fresh.c_str(), path.c_str()) != 0)) {
    written = ErrnoStatus(errno, fmt::format("write '{}'", path));
  }
  if (!written.ok()) {
    ::unlink(fresh.c_str());
  }
  return written;
}

absl::StatusOr<LineReader> LineReader::Open(const std::string& path, uint64_t offset) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", path));
  }
  return LineReader(std::move(fd), offset);
}

std::optional<std::string_view> LineReader::Next() {
  size_t looked_at = begin_;
  while (status_.ok()) {
    const void* end = looked_at < buffer_.size() ? std::memchr(buffer_.data() + looked_at, '\n',
                                                               buffer_.size() - looked_at)
                                                 : nullptr;
    if (end != nullptr) {
      const auto length =
          static_cast<size_t>(static_cast<const char*>(end) - buffer_.data()) - begin_;
      const std::string_view line = std::string_view(buffer_).substr(begin_, length);
      begin_ += length + 1;
      offset_ += length + 1;
      return line;
    }
    if (begin_ > 0) {
      buffer_.erase(0, begin_);
      begin_ = 0;
    }
    looked_at = buffer_.size();
    if (looked_at > kMaxLine) {
      status_ = absl::DataLossError("a line is longer than any record");
      break;
    }
    buffer_.resize(looked_at + kPiece);
    const ssize_t got = ::pread(fd_.get(), buffer_.data() + looked_at, kPiece,
                                static_cast<off_t>(offset_ + looked_at));
    buffer_.resize(looked_at + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0 && errno != EINTR) {
      status_ = ErrnoStatus(errno, "read the record");
    } else if (got == 0) {
      break;
    }
  }
  return {};
}

}  // namespace creel
