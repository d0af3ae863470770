#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/closer.h"
#include "supervisor/sandbox/frame_parser.h"

namespace creel {

// Stands between accepted Unix-socket connections and gRPC: each gets a socket pair whose other end
// is given to gRPC, and one thread carries the bytes of all of them, checking what the peer sends.
// Thread-safe.
class FrameGuard {
 public:
  // Called once for each connection, from the guard's thread, when it is over. OK: an ordinary end
  // of file. kInvalidArgument, kResourceExhausted: the bound that the peer broke.
  // kPermissionDenied: the peer passed descriptors. Else what Drop was given. Must not block.
  using OnEnd = std::function<void(const absl::Status& why)>;

  // A connection under guard.
  struct Guarded {
    // The end for gRPC, non-blocking. It is closed to end the connection.
    UniqueFd inner;
    // For Drop.
    uint64_t id = 0;
  };

  static absl::StatusOr<std::unique_ptr<FrameGuard>> Start();
  // Ends all connections with kCancelled.
  ~FrameGuard();

  // Takes an accepted `peer`. kResourceExhausted: out of descriptors, or too many dropped peers
  // wait to be closed.
  absl::StatusOr<Guarded> Guard(UniqueFd peer, const FrameBounds& bounds, OnEnd on_end);
  // Ends a connection at once, on both sides; `why` goes to its OnEnd. One that is over is left be.
  void Drop(uint64_t id, const absl::Status& why);

  // Closes the sockets of peers, of this guard and of the doors before it.
  [[nodiscard]] Closer& closer();
  // Connections that are under guard.
  [[nodiscard]] size_t connections() const;

 private:
  struct Impl;
  explicit FrameGuard(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace creel
