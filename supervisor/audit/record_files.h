#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// One file of the record: `record-2026-11-27-000000000123.jsonl`, by its day and its first record.
struct RecordFile {
  std::string path;
  std::string name;
  uint64_t first_seq = 0;
};

std::string RecordFileName(std::chrono::system_clock::time_point day, uint64_t first_seq);

// The files of a record in the order of their first record. Others in the folder are left out.
absl::StatusOr<std::vector<RecordFile>> ListRecordFiles(const std::string& directory);

// A small file as a whole; no link is followed. kResourceExhausted: it is longer.
absl::StatusOr<std::string> ReadRecordFile(const std::string& path, size_t max_bytes);
// Writes one under a temporary name, to the disk, and renames it; mode 0600.
absl::Status WriteRecordFile(const std::string& path, std::string_view content);

// Reads the lines of a file one after the other. Not thread-safe.
class LineReader {
 public:
  static absl::StatusOr<LineReader> Open(const std::string& path, uint64_t offset = 0);

  // The next line, without its end, until the next call; nothing at the end, after an error, or
  // where a line is longer than any of ours.
  std::optional<std::string_view> Next();
  // Where the next line begins.
  [[nodiscard]] uint64_t offset() const { return offset_; }
  // After the last line: what follows it, without an end of line.
  [[nodiscard]] std::string_view rest() const { return std::string_view(buffer_).substr(begin_); }
  [[nodiscard]] const absl::Status& status() const { return status_; }

 private:
  explicit LineReader(UniqueFd fd, uint64_t offset) : fd_(std::move(fd)), offset_(offset) {}

  UniqueFd fd_;
  uint64_t offset_;
  std::string buffer_;
  size_t begin_ = 0;  // of what has not been handed over
  absl::Status status_;
};

}  // namespace creel
