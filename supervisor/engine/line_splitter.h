#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace creel {

// Lines out of a stream of bytes that comes in pieces.
class LineSplitter {
 public:
  explicit LineSplitter(size_t max_line) : max_line_(max_line) {}

  // Calls `take(line)` for each line that `bytes` ends, without its end; empty ones and the record
  // separators of RFC 7464 are left out. Stops and returns false if `take` does, or if a line is
  // longer than it may be.
  template <typename Take>
  bool Feed(std::string_view bytes, Take&& take) {
    while (!bytes.empty()) {
      const size_t end = bytes.find('\n');
      const std::string_view piece = bytes.substr(0, end);
      if (line_.size() + piece.size() > max_line_) {
        too_long_ = true;
        return false;
      }
      line_ += piece;
      if (end == std::string_view::npos) {
        return true;
      }
      bytes.remove_prefix(end + 1);
      if (!Flush(take)) {
        return false;
      }
    }
    return true;
  }

  // Calls `take` for a last line that nothing ended.
  template <typename Take>
  bool Flush(Take&& take) {
    std::string_view line = line_;
    while (!line.empty() && (line.front() == '\x1e' || line.front() == ' ')) {
      line.remove_prefix(1);
    }
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) {
      line.remove_suffix(1);
    }
    const bool go_on = line.empty() || take(line);
    line_.clear();
    return go_on;
  }

  [[nodiscard]] bool too_long() const { return too_long_; }

 private:
  const size_t max_line_;
  std::string line_;
  bool too_long_ = false;
};

}  // namespace creel
