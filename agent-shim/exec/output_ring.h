#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <variant>

#include "creel/shim/v1/process.pb.h"
#include "creel/shim/v1/shim.pb.h"

namespace creel::shim {

// The newest output of one process, in pieces, each ready to be sent as it is: a reader shares the
// piece with the ring, and the bytes are copied once, when gRPC writes them out. Not thread-safe.
class OutputRing {
 public:
  using Piece = std::shared_ptr<const v1::RunResponse>;
  // At a reader's offset: nothing yet, bytes that are no longer there, or the next piece.
  using Next = std::variant<std::monostate, v1::OutputGap, Piece>;

  // Adds output at the end. Never drops any.
  void Append(v1::OutputStream stream, std::string data);
  // Drops the oldest pieces until what is left costs at most `bytes`, but none that reaches beyond
  // `keep_from`.
  void Trim(uint64_t bytes, uint64_t keep_from);

  [[nodiscard]] Next Read(uint64_t offset) const;

  // Output from begin() up to end() is still there.
  [[nodiscard]] uint64_t begin() const { return begin_; }
  [[nodiscard]] uint64_t end() const { return end_; }
  // Memory that it takes, roughly.
  [[nodiscard]] uint64_t cost() const { return cost_; }

 private:
  std::deque<std::shared_ptr<v1::RunResponse>> pieces_;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
  uint64_t cost_ = 0;
};

}  // namespace creel::shim
