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

// Stands between accepted Unix-socket connections and gRPC: gRPC holds the socket itself, and what
// it receives is checked in the very calls by which it does (guarded_calls.h). A thread of its own
// keeps the time and tells of ends. Thread-safe.
class FrameGuard {
 public:
  // Called once for each connection, from the guard's thread, when it is over. OK: the peer ended
  // it. kUnavailable: gRPC did, whose user let go of it or whose peer broke HTTP/2 in a way that it
  // found itself. kInvalidArgument, kResourceExhausted: the bound that the peer broke.
  // kPermissionDenied: the peer passed descriptors. Else what Drop was given. Must not block.
  using OnEnd = std::function<void(const absl::Status& why)>;

  // A connection under guard.
  struct Guarded {
    // The socket, non-blocking, for gRPC. It is closed to end the connection.
    UniqueFd inner;
    // For Drop.
    uint64_t id = 0;
  };

  static absl::StatusOr<std::unique_ptr<FrameGuard>> Start();
  // Ends all connections with kCancelled. gRPC's descriptors stay under guard until it closes them.
  ~FrameGuard();

  // Takes an accepted `peer`. kResourceExhausted: out of descriptors, or too many dropped peers
  // wait to be closed.
  absl::StatusOr<Guarded> Guard(UniqueFd peer, const FrameBounds& bounds, OnEnd on_end);
  // Ends a connection at once, on both sides; `why` goes to its OnEnd. One that is over is left be.
  void Drop(uint64_t id, const absl::Status& why);

  // Closes the sockets of peers, of this guard and of the doors before it.
  [[nodiscard]] Closer& closer();
  // Connections under guard, each until its descriptor is closed.
  [[nodiscard]] size_t connections() const;

 private:
  struct Impl;
  explicit FrameGuard(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace creel
