#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/closer.h"
#include "supervisor/sandbox/frame_parser.h"

namespace creel {

// One connection of a FrameGuard. gRPC holds its descriptor and makes its calls as on any other;
// they arrive here (see guarded_calls.h), and what is received is checked before gRPC has it.
// Thread-safe, but for Close, which is the last call on a descriptor.
class GuardedConnection {
 public:
  // Called once, from whichever thread ends the connection, under no lock. Must not block.
  using OnOver = std::function<void(const absl::Status& why)>;
  // Called when the descriptor is gone; the last thing that happens.
  using OnClosed = std::function<void()>;

  GuardedConnection(UniqueFd peer, std::shared_ptr<Closer> closer, const FrameBounds& bounds,
                    OnOver on_over, OnClosed on_closed);
  GuardedConnection(const GuardedConnection&) = delete;
  GuardedConnection& operator=(const GuardedConnection&) = delete;

  // In the place of the kernel's calls, and like them in what they return. After a
  // broken bound receiving fails with ECONNRESET, for good.
  ssize_t Receive(msghdr* message, int flags);
  ssize_t Send(const msghdr* message, int flags);
  int Shutdown(int how);
  // epoll_ctl. gRPC watches every descriptor for room to write from its first day, and so is woken
  // each time that a peer has read: the watch is set only while a send waits for room.
  int Watch(int epoll, int operation, epoll_event* event);
  int Close();

  // Ends it at once for both sides. With an error, nothing is received any more; with OK, what the
  // peer has sent by now.
  void End(const absl::Status& why);

  [[nodiscard]] int fd() const { return fd_; }
  // Frames, and bytes in each direction, that went through Receive and Send.
  [[nodiscard]] uint64_t frames() const { return frames_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t received() const { return received_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t sent() const { return sent_.load(std::memory_order_relaxed); }

 private:
  // Takes out what came along with the bytes; false if something did.
  bool ClosePassed(msghdr& message);
  absl::Status Check(const iovec* parts, size_t count, size_t bytes);
  // A send has found room for all, or for not enough.
  void FoundRoom();
  void WaitForRoom();

  const int fd_;
  const int process_;
  const std::shared_ptr<Closer> closer_;
  const OnOver on_over_;
  const OnClosed on_closed_;
  std::atomic<bool> dropped_ = false;
  std::atomic<uint64_t> frames_ = 0;
  std::atomic<uint64_t> received_ = 0;
  std::atomic<uint64_t> sent_ = 0;

  Mutex mu_;
  FrameParser parser_ ABSL_GUARDED_BY(mu_);
  uint64_t carried_ ABSL_GUARDED_BY(mu_) = 0;  // of what was sent, as the parser knows it
  bool over_ ABSL_GUARDED_BY(mu_) = false;

  Mutex watch_mu_;
  int epoll_ ABSL_GUARDED_BY(watch_mu_) = -1;            // -1: not watched
  epoll_event watched_ ABSL_GUARDED_BY(watch_mu_) = {};  // as gRPC asked for it
  // The watch for room is set, for at least so many sends more. Of the one that sends.
  int room_watched_for_ = 0;
};

}  // namespace creel
