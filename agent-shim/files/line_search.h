#pragma once

#include <re2/re2.h>

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "creel/shim/v1/files.pb.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// Searches one open file, a block at a time. Blocks hold whole lines; a line longer than a block is
// searched in overlapping windows.
class LineSearch {
 public:
  // `pattern` must outlive the search and treat `^` and `$` as the ends of lines; `path` goes into
  // the matches.
  LineSearch(UniqueFd fd, const RE2& pattern, std::string path, uint32_t context);

  // Goes on until something is found, or `kBlocksPerStep` blocks are done, or the file ends, and
  // appends matches and context lines to `out`. `matches_left` is counted down; at a match beyond
  // it the search ends.
  absl::Status Step(std::deque<v1::GrepMatch>& out, uint64_t& matches_left);

  [[nodiscard]] bool done() const { return done_; }
  // A NUL byte ended it, or it could not be read.
  [[nodiscard]] bool binary() const { return binary_; }
  // There were more matches than wanted.
  [[nodiscard]] bool cut() const { return cut_; }

 private:
  struct Line {
    uint64_t number;
    std::string text;
    bool truncated;
  };

  // Reads the next block behind what is kept of the last one.
  absl::Status Fill();
  void SearchBlock(std::deque<v1::GrepMatch>& out, uint64_t& matches_left);
  void SearchLongLine(std::deque<v1::GrepMatch>& out, uint64_t& matches_left);
  void Emit(std::deque<v1::GrepMatch>& out, uint64_t number, std::string_view line, bool truncated,
            bool context) const;
  void EmitContextBefore(std::deque<v1::GrepMatch>& out, size_t line_begin);
  void RememberTail();
  [[nodiscard]] size_t LineEnd(size_t begin) const;

  const UniqueFd fd_;
  const RE2& pattern_;
  const std::string path_;
  const uint32_t context_;

  // [at_, block_end_) is to be searched; what lies behind block_end_ is the start of a line whose
  // end has not been read yet.
  std::string buffer_;
  size_t filled_ = 0;
  size_t at_ = 0;
  size_t block_end_ = 0;
  uint64_t file_offset_ = 0;
  bool end_of_file_ = false;
  // The number of the line at `at_`.
  uint64_t line_ = 1;

  // Lines still to show behind the last match.
  uint32_t after_left_ = 0;
  // The last lines before `at_` that were neither shown nor are in the buffer any more.
  std::deque<Line> before_;

  // In a line longer than the buffer: its first bytes, and whether it was shown.
  bool in_long_line_ = false;
  bool long_line_shown_ = false;
  std::string long_line_head_;

  bool done_ = false;
  bool binary_ = false;
  bool cut_ = false;
};

}  // namespace creel::shim
