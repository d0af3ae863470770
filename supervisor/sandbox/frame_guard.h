#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

// Bounds on what a peer may send on one HTTP/2 connection.
struct FrameBounds {
  bool expect_preface = false;            // true where the peer is the client (gateway.sock)
  uint32_t max_frame_bytes = 1u << 20;    // and never above what gRPC announces
  uint32_t max_header_bytes = 32u << 10;  // HEADERS with its CONTINUATIONs, compressed
  uint32_t max_continuations = 8;
  uint32_t max_control_per_second = 2000;  // PING, SETTINGS, RST_STREAM, PRIORITY, WINDOW_UPDATE
                                           // beyond what the data carried explains
};

// Reads the frame headers of one direction of an HTTP/2 connection and nothing else. No I/O, so
// that it can be fuzzed. Not thread-safe.
class FrameParser {
 public:
  explicit FrameParser(const FrameBounds& bounds);
  // Looks at the next bytes of the stream, in pieces of any size. An error (kInvalidArgument or
  // kResourceExhausted) says which bound broke; the connection must then be dropped.
  absl::Status Consume(std::string_view bytes, std::chrono::steady_clock::time_point now);
  // After Consume: how many bytes of the current DATA frame's payload are still to come and need
  // not be looked at (they may be spliced past; tell with SkipPayload).
  [[nodiscard]] uint64_t payload_left() const;
  void SkipPayload(uint64_t bytes);
  // Frames seen so far.
  [[nodiscard]] uint64_t frames() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Stands between accepted Unix-socket connections and gRPC: each gets a socket pair whose other end
// is given to gRPC, and one thread carries the bytes of all of them, checking what the peer sends.
// Thread-safe.
class FrameGuard {
 public:
  // `broken` is called once per connection from the guard's thread when it is over: OK for an
  // ordinary end of file, an error that says which bound the peer broke.
  using OnEnd = std::function<void(const absl::Status& why)>;

  static absl::StatusOr<std::unique_ptr<FrameGuard>> Start();
  ~FrameGuard();

  // Takes the accepted `peer` and returns the end for gRPC.
  absl::StatusOr<UniqueFd> Guard(UniqueFd peer, const FrameBounds& bounds, OnEnd on_end);

 private:
  struct Impl;
  explicit FrameGuard(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace creel
