#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace creel::cli::mcp {

// Keeps the beginning and the end of an output, in at most `limit` bytes, and where the gap is.
class BoundedOutput {
 public:
  explicit BoundedOutput(size_t limit) : head_limit_(limit / 4), tail_limit_(limit - limit / 4) {}

  // `offset`: of the first byte of `data` in the whole output.
  void Add(uint64_t offset, std::string_view data);
  // All of it, with `hint(from, to)` in the place of what was left out.
  template <class Hint>
  [[nodiscard]] std::string Text(const Hint& hint) const {
    return left_out_ == 0 ? head_ + tail_ : head_ + hint(gap_from_, gap_from_ + left_out_) + tail_;
  }
  [[nodiscard]] uint64_t left_out() const { return left_out_; }
  // Where the output goes on.
  [[nodiscard]] uint64_t end() const { return end_; }

 private:
  const size_t head_limit_;
  const size_t tail_limit_;
  std::string head_;
  std::string tail_;
  uint64_t gap_from_ = 0;
  uint64_t left_out_ = 0;
  uint64_t end_ = 0;
};

}  // namespace creel::cli::mcp
