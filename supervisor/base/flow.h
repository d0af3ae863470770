#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// A pipe with what one flow has taken and not yet given on.
class FlowPipe {
 public:
  static absl::StatusOr<FlowPipe> Make();

  // Takes what `from` has ready, at most `most` bytes. Only while nothing is held. As read(2) on a
  // non-blocking descriptor: 0 at its end, -1 with errno.
  ssize_t Fill(int from, size_t most);
  // Gives what is held to `to`, as far as that takes it. As write(2).
  ssize_t Drain(int to);
  [[nodiscard]] size_t held() const { return held_; }

 private:
  FlowPipe(UniqueFd out, UniqueFd in) : out_(std::move(out)), in_(std::move(in)) {}

  UniqueFd out_;
  UniqueFd in_;
  size_t held_ = 0;
  // A kind of descriptor that splice(2) does not take: it is read and written instead.
  bool copy_from_ = false;
  bool copy_to_ = false;
};

// Empty pipes for the flows of one thread, so that a connection with nothing to carry has none.
class FlowPipes {
 public:
  explicit FlowPipes(size_t kept) : kept_(kept) {}
  absl::StatusOr<FlowPipe> Take();
  void Give(FlowPipe pipe);

 private:
  const size_t kept_;
  std::vector<FlowPipe> pipes_;
};

// One direction of a relay between two non-blocking stream sockets: bytes go from one to the other
// inside the kernel, and the end of one is passed on as a shutdown of the other. Serves one thread,
// in a process that ignores SIGPIPE.
class Flow {
 public:
  enum class State {
    kBlocked,  // until `from` has more, or `to` takes more
    kMore,     // the budget is used up
    kDone,     // `from` ended, and `to` has been told
    kBroken,   // `from` cannot be read any more, or there are no descriptors
    kStuck,    // `to` cannot be written any more
  };

  // Both descriptors are lent.
  Flow(int from, int to) : from_(from), to_(to) {}
  // Carries up to `budget` bytes.
  State Pump(FlowPipes& pipes, size_t budget);
  // Bytes that `to` has taken so far.
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] bool done() const { return done_; }

 private:
  const int from_;
  const int to_;
  std::vector<FlowPipe> pipe_;  // none or one
  uint64_t bytes_ = 0;
  bool ended_ = false;
  bool done_ = false;
};

}  // namespace creel
