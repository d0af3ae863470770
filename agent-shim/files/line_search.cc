#include "agent-shim/files/line_search.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "agent-shim/files/kernel.h"
#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr size_t kBufferBytes = size_t{256} * 1024;
constexpr size_t kOverlap = size_t{8} * 1024;
constexpr size_t kShown = size_t{4} * 1024;
// How much of a long line is shown in front of a match far inside it.
constexpr size_t kLead = 256;
constexpr int kBlocksPerStep = 64;

std::string_view Shorten(std::string_view line, bool* truncated) {
  *truncated = *truncated || line.size() > kShown;
  return line.substr(0, kShown);
}

}  // namespace

LineSearch::LineSearch(UniqueFd fd, const RE2& pattern, std::string path, uint32_t context)
    : fd_(std::move(fd)), pattern_(pattern), path_(std::move(path)), context_(context) {}

absl::Status LineSearch::Step(std::deque<v1::GrepMatch>& out, uint64_t& matches_left) {
  const size_t had = out.size();
  for (int i = 0; i < kBlocksPerStep && !done_ && out.size() == had; ++i) {
    if (at_ == block_end_) {
      RETURN_IF_ERROR(Fill());
      if (done_) {
        break;
      }
    }
    if (in_long_line_) {
      SearchLongLine(out, matches_left);
    } else {
      SearchBlock(out, matches_left);
    }
  }
  return absl::OkStatus();
}

absl::Status LineSearch::Fill() {
  if (end_of_file_ && at_ == filled_) {
    done_ = true;
    return absl::OkStatus();
  }
  buffer_.resize(kBufferBytes);
  // What is left is a line's start; in a long line it is the overlap of two windows, at most.
  const size_t keep_from = in_long_line_ ? at_ - std::min(at_, kOverlap) : at_;
  const size_t kept = filled_ - keep_from;
  std::memmove(buffer_.data(), buffer_.data() + keep_from, kept);
  at_ -= keep_from;
  const ssize_t got = ReadAt(fd_.get(), buffer_.data() + kept, kBufferBytes - kept, file_offset_);
  if (got < 0) {
    done_ = true;
    binary_ = true;
    return absl::OkStatus();
  }
  filled_ = kept + static_cast<size_t>(got);
  file_offset_ += static_cast<uint64_t>(got);
  end_of_file_ = filled_ < kBufferBytes;
  if (std::memchr(buffer_.data() + kept, '\0', static_cast<size_t>(got)) != nullptr) {
    done_ = true;
    binary_ = true;
    return absl::OkStatus();
  }
  if (at_ == filled_) {
    done_ = true;
    return absl::OkStatus();
  }
  if (in_long_line_) {
    block_end_ = filled_;
    return absl::OkStatus();
  }
  const void* last = memrchr(buffer_.data(), '\n', filled_);
  block_end_ = filled_;
  if (!end_of_file_ && last != nullptr) {
    block_end_ = static_cast<size_t>(static_cast<const char*>(last) - buffer_.data()) + 1;
  } else if (!end_of_file_) {
    in_long_line_ = true;
    long_line_shown_ = false;
    long_line_head_ = buffer_.substr(0, kShown);
  }
  return absl::OkStatus();
}

size_t LineSearch::LineEnd(size_t begin) const {
  const void* end = std::memchr(buffer_.data() + begin, '\n', block_end_ - begin);
  return end == nullptr ? block_end_
                        : static_cast<size_t>(static_cast<const char*>(end) - buffer_.data());
}

void LineSearch::SearchBlock(std::deque<v1::GrepMatch>& out, uint64_t& matches_left) {
  const re2::StringPiece block(buffer_.data(), block_end_);
  re2::StringPiece found;
  size_t match_line = block_end_;
  if (pattern_.Match(block, at_, block_end_, RE2::UNANCHORED, &found, 1)) {
    const auto match = static_cast<size_t>(found.data() - buffer_.data());
    // Behind the last newline there is no line that an empty match could be in.
    const bool behind = match == block_end_ && match > at_ && buffer_[match - 1] == '\n';
    if (!behind) {
      const void* newline = memrchr(buffer_.data() + at_, '\n', match - at_);
      match_line =
          newline == nullptr
              ? at_
              : static_cast<size_t>(static_cast<const char*>(newline) - buffer_.data()) + 1;
    }
  }
  while (after_left_ > 0 && at_ < match_line) {
    const size_t end = LineEnd(at_);
    Emit(out, line_, std::string_view(buffer_).substr(at_, end - at_), false, true);
    --after_left_;
    ++line_;
    at_ = std::min(end + 1, block_end_);
  }
  if (match_line == block_end_) {
    RememberTail();
    line_ += static_cast<uint64_t>(std::count(buffer_.begin() + static_cast<ptrdiff_t>(at_),
                                              buffer_.begin() + static_cast<ptrdiff_t>(block_end_),
                                              '\n'));
    at_ = block_end_;
    return;
  }
  if (matches_left == 0) {
    cut_ = true;
    done_ = true;
    return;
  }
  --matches_left;
  EmitContextBefore(out, match_line);
  const size_t end = LineEnd(match_line);
  Emit(out, line_, std::string_view(buffer_).substr(match_line, end - match_line), false, false);
  ++line_;
  at_ = std::min(end + 1, block_end_);
  after_left_ = context_;
}

void LineSearch::SearchLongLine(std::deque<v1::GrepMatch>& out, uint64_t& matches_left) {
  const void* newline = std::memchr(buffer_.data() + at_, '\n', block_end_ - at_);
  const bool ends = newline != nullptr || end_of_file_;
  const size_t line_end =
      newline != nullptr ? static_cast<size_t>(static_cast<const char*>(newline) - buffer_.data())
                         : block_end_;
  if (!long_line_shown_) {
    // What stands before the window, and the last byte of one that is cut, are there so that `^`
    // and `$` do not hold in the middle of the line.
    const size_t begin = at_ == 0 ? 0 : at_ - std::min(at_ - 1, kOverlap - 1);
    const size_t end = ends ? line_end : line_end - 1;
    const re2::StringPiece window(buffer_.data(), line_end);
    re2::StringPiece found;
    if (begin <= end && pattern_.Match(window, begin, end, RE2::UNANCHORED, &found, 1)) {
      if (matches_left == 0) {
        cut_ = true;
        done_ = true;
        return;
      }
      --matches_left;
      EmitContextBefore(out, at_);
      const auto match = static_cast<size_t>(found.data() - buffer_.data());
      const bool in_head = at_ == 0 && match + found.size() <= kShown;
      const size_t from = match - std::min(match, kLead);
      Emit(out, line_,
           in_head ? std::string_view(long_line_head_)
                   : std::string_view(buffer_).substr(from, std::min(kShown, line_end - from)),
           true, false);
      long_line_shown_ = true;
      after_left_ = context_;
    }
  }
  if (!ends) {
    at_ = block_end_;
    return;
  }
  if (!long_line_shown_ && after_left_ > 0) {
    Emit(out, line_, long_line_head_, true, true);
    --after_left_;
  } else if (!long_line_shown_ && context_ > 0) {
    before_.push_back({.number = line_, .text = long_line_head_, .truncated = true});
    if (before_.size() > context_) {
      before_.pop_front();
    }
  }
  ++line_;
  in_long_line_ = false;
  at_ = std::min(line_end + 1, filled_);
  // The rest of the window is ordinary lines again.
  const void* last = memrchr(buffer_.data() + at_, '\n', filled_ - at_);
  block_end_ = end_of_file_ ? filled_
               : last == nullptr
                   ? at_
                   : static_cast<size_t>(static_cast<const char*>(last) - buffer_.data()) + 1;
}

void LineSearch::Emit(std::deque<v1::GrepMatch>& out, uint64_t number, std::string_view line,
                      bool truncated, bool context) const {
  const std::string_view shown = Shorten(line, &truncated);
  v1::GrepMatch& match = out.emplace_back();
  match.set_path(path_);
  match.set_line_number(number);
  match.set_line(shown.data(), shown.size());
  match.set_line_truncated(truncated);
  match.set_is_context(context);
}

void LineSearch::EmitContextBefore(std::deque<v1::GrepMatch>& out, size_t line_begin) {
  // Line starts between `at_` and the match, the nearest `context_` of them.
  std::vector<size_t> starts;
  size_t at = line_begin;
  while (at > at_ && starts.size() < context_) {
    const void* newline = memrchr(buffer_.data() + at_, '\n', at - 1 - at_);
    at = newline == nullptr
             ? at_
             : static_cast<size_t>(static_cast<const char*>(newline) - buffer_.data()) + 1;
    starts.push_back(at);
  }
  const size_t missing = context_ - starts.size();
  if (at == at_) {
    for (size_t i = before_.size() - std::min(missing, before_.size()); i < before_.size(); ++i) {
      Emit(out, before_[i].number, before_[i].text, before_[i].truncated, true);
    }
  }
  before_.clear();
  line_ +=
      static_cast<uint64_t>(std::count(buffer_.begin() + static_cast<ptrdiff_t>(at_),
                                       buffer_.begin() + static_cast<ptrdiff_t>(line_begin), '\n'));
  for (size_t i = starts.size(); i > 0; --i) {
    const size_t begin = starts[i - 1];
    Emit(out, line_ - i, std::string_view(buffer_).substr(begin, LineEnd(begin) - begin), false,
         true);
  }
  at_ = line_begin;
}

void LineSearch::RememberTail() {
  std::deque<Line> tail;
  size_t at = block_end_;
  uint64_t number = line_ + static_cast<uint64_t>(std::count(
                                buffer_.begin() + static_cast<ptrdiff_t>(at_),
                                buffer_.begin() + static_cast<ptrdiff_t>(block_end_), '\n'));
  while (at > at_ && tail.size() < context_) {
    const void* newline = memrchr(buffer_.data() + at_, '\n', at - 1 - at_);
    const size_t begin =
        newline == nullptr
            ? at_
            : static_cast<size_t>(static_cast<const char*>(newline) - buffer_.data()) + 1;
    Line line{.number = --number, .truncated = false};
    line.text =
        Shorten(std::string_view(buffer_).substr(begin, LineEnd(begin) - begin), &line.truncated);
    tail.push_front(std::move(line));
    at = begin;
  }
  before_.insert(before_.end(), std::make_move_iterator(tail.begin()),
                 std::make_move_iterator(tail.end()));
  while (before_.size() > context_) {
    before_.pop_front();
  }
}

}  // namespace creel::shim
