#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/closer.h"
#include "supervisor/base/event_loop.h"
#include "supervisor/sandbox/frame_parser.h"

namespace creel {

// A block of bytes under way from one socket to the other.
struct GuardBuffer {
  // Large enough that the cost of a turn is the copying, small enough to stay in the second cache.
  static constexpr size_t kSize = 128u << 10;
  char data[kSize];
};

// The buffers of a guard's thread. Most connections need none of their own: what was read is
// written before the next one is read, so that one buffer serves all; only what a receiver is too
// slow for stays in its own. Not thread-safe.
class GuardBuffers {
 public:
  [[nodiscard]] std::unique_ptr<GuardBuffer> Take();
  void Give(std::unique_ptr<GuardBuffer> buffer);

 private:
  std::vector<std::unique_ptr<GuardBuffer>> spare_;
};

// One connection of a FrameGuard: carries bytes between the peer's socket and the one that gRPC
// holds the other end of, as far as the peer keeps to its bounds. Lives in the guard's thread.
class GuardedConnection {
 public:
  // `on_over` is called once, and may not delete the connection.
  using OnOver = std::function<void(const absl::Status& why)>;

  // `peer` and `inner` are non-blocking. Nothing happens before Begin.
  GuardedConnection(EventLoop& loop, GuardBuffers& buffers, Closer& closer, UniqueFd peer,
                    UniqueFd inner, const FrameBounds& bounds, OnOver on_over);
  ~GuardedConnection();
  GuardedConnection(const GuardedConnection&) = delete;
  GuardedConnection& operator=(const GuardedConnection&) = delete;

  void Begin();
  // Closes both sides.
  void End(const absl::Status& why);

 private:
  struct Side {
    UniqueFd fd;
    EventLoop::Id watch = 0;
    bool is_peer = false;
    bool readable = true;     // or so it is thought: the next read tells
    bool hung_up = false;     // the end of file is near: read until it comes
    bool ended = false;       // it has come
    bool shut = false;        // it was told that no more comes
    bool write_dead = false;  // takes no more bytes
    bool blocked = false;     // has no room at present; its EPOLLOUT is awaited
    // Read from the other side, still to be written to this one.
    std::unique_ptr<GuardBuffer> pending;
    size_t pending_at = 0;
    size_t pending_end = 0;
  };

  void OnEvent(Side& side, uint32_t events);
  // Carries what there is in both directions, for one turn.
  void Turn();
  // Carries from one side to the other; true if it stopped because its turn was over.
  bool Carry(Side& from, Side& to);
  bool FlushPending(Side& to);
  // Reads from the peer and refuses what comes along with the bytes.
  ssize_t ReadPeer(char* data, size_t size);
  // -1: `to` has failed for good. Else how much it took; less than `size`: it is blocked.
  ssize_t Write(Side& to, const char* data, size_t size);
  absl::Status Check(const Side& from, const char* data, size_t size);
  // Ends the connection if what is under way has not arrived soon.
  void Linger();

  EventLoop& loop_;
  GuardBuffers& buffers_;
  Closer& closer_;
  const OnOver on_over_;
  const std::chrono::milliseconds first_frame_within_;
  FrameParser parser_;
  Side peer_;
  Side inner_;
  bool over_ = false;
  EventLoop::Id linger_ = 0;
  EventLoop::Id first_frame_ = 0;
  // Tasks that are posted outlive the connection; this tells them.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  bool turn_posted_ = false;
};

}  // namespace creel
