#include "supervisor/audit/record_start.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "supervisor/audit/line.h"
#include "supervisor/audit/record_files.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/unique_fd.h"

namespace creel {
namespace {

// More than this is not looked at for being moved aside: a crash tears one line.
constexpr uint64_t kMaxTorn = 64u << 20;

struct Torn {
  uint64_t bytes = 0;
  bool whole_lines = false;
  std::string moved_to{};
  std::string sha256{};
};

// Moves what stands after byte `end` of a file aside. Nothing if nothing does.
absl::StatusOr<std::optional<Torn>> MoveTorn(const RecordFile& file, const std::string& directory,
                                             uint64_t end) {
  struct stat info {};
  if (::lstat(file.path.c_str(), &info) != 0) {
    return ErrnoStatus(errno, fmt::format("look at '{}'", file.path));
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size <= end) {
    return std::nullopt;
  }
  Torn torn{.bytes = size - end};
  if (torn.bytes > kMaxTorn) {
    return absl::DataLossError(fmt::format(
        "'{}' ends in {} bytes that are no record; look at it, and move it away if it is not ours",
        file.path, torn.bytes));
  }
  ASSIGN_OR_RETURN(const std::string all, ReadRecordFile(file.path, size));
  const std::string rest = all.substr(end);
  Sha256 hash;
  hash.Update(rest);
  torn.sha256 = Hex(hash.Finish());
  torn.whole_lines = rest.find('\n') != std::string::npos;
  torn.moved_to = fmt::format("torn-{}-{}", file.name, torn.sha256.substr(0, 8));
  RETURN_IF_ERROR(WriteRecordFile(fmt::format("{}/{}", directory, torn.moved_to), rest));
  const UniqueFd fd(::open(file.path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(end)) != 0 ||
      ::fdatasync(fd.get()) != 0) {
    return ErrnoStatus(errno, fmt::format("mend '{}'", file.path));
  }
  return torn;
}

}  // namespace

absl::StatusOr<LastLine> FindLastLine(const std::string& path) {
  // From the front: a file has a bounded size, and this happens once at a start.
  ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  LastLine last;
  while (const std::optional<std::string_view> line = reader.Next()) {
    const std::optional<LineFrame> frame = ParseFrame(*line);
    if (frame && HashFits(*line, *frame)) {
      last = {.seq = frame->seq, .hash = std::string(frame->hash), .end = reader.offset()};
    }
  }
  if (!absl::IsDataLoss(reader.status())) {
    RETURN_IF_ERROR(reader.status());
  }
  if (last.seq == 0) {
    return absl::NotFoundError(fmt::format("'{}' holds no record", path));
  }
  return last;
}

absl::StatusOr<RecordStart> FindStart(const std::string& directory,
                                      const std::optional<AuditHead>& known_head) {
  RecordStart start;
  ASSIGN_OR_RETURN(std::vector<RecordFile> files, ListRecordFiles(directory));
  while (!files.empty()) {
    const RecordFile& file = files.back();
    absl::StatusOr<LastLine> last = FindLastLine(file.path);
    if (!last.ok() && !absl::IsNotFound(last.status())) {
      return last.status();
    }
    const uint64_t end = last.ok() ? last->end : 0;
    ASSIGN_OR_RETURN(const std::optional<Torn> torn, MoveTorn(file, directory, end));
    if (torn) {
      start.events.push_back(AuditEvent(torn->whole_lines ? "record.damaged" : "record.torn"));
      start.events.back()
          .Text("file", file.name)
          .Number("bytes", static_cast<int64_t>(torn->bytes))
          .Text("sha256", torn->sha256)
          .Text("moved_to", torn->moved_to);
      start.findings.push_back(
          fmt::format("{} bytes after the last record of '{}' were no record{}; "
                      "they are kept in '{}'",
                      torn->bytes, file.name,
                      torn->whole_lines ? "" : " (a line that a crash tore)", torn->moved_to));
    }
    if (last.ok()) {
      start.seq = last->seq;
      start.hash = last->hash;
      start.file = file.path;
      start.file_first_seq = file.first_seq;
      break;
    }
    // Nothing is left in it.
    if (::unlink(file.path.c_str()) != 0) {
      return ErrnoStatus(errno, fmt::format("remove the empty '{}'", file.path));
    }
    files.pop_back();
  }
  if (known_head && known_head->seq > start.seq) {
    start.events.push_back(AuditEvent("record.truncated"));
    start.events.back()
        .Number("first_missing", static_cast<int64_t>(start.seq + 1))
        .Number("last_missing", static_cast<int64_t>(known_head->seq))
        .Text("last_hash", known_head->hash);
    start.findings.push_back(
        fmt::format("records {} to {} were written and are gone", start.seq + 1, known_head->seq));
  }
  return start;
}

}  // namespace creel
