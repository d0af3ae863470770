#pragma once

#include <cstddef>
#include <memory>

#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/base/event_loop.h"
#include "supervisor/sandbox/frame_guard.h"

namespace creel {

// What all links and doors share: a thread that accepts and decides, and the guard, once proved.
class LinkPool {
 public:
  // Peers of all links together that have not proved themselves yet.
  static constexpr size_t kMaxUnproved = 128;

  static absl::StatusOr<std::unique_ptr<LinkPool>> Start();
  // The links and doors are gone by now. Ends all connections, and waits for the calls that they
  // had under way.
  ~LinkPool();
  LinkPool(const LinkPool&) = delete;
  LinkPool& operator=(const LinkPool&) = delete;

  FrameGuard& guard() { return *guard_; }
  EventLoop& loop() { return *loop_; }

  // For links, in the loop's thread: takes one of kMaxUnproved places, false if none is free.
  bool TakePlace();
  void GivePlace() { --unproved_; }

  // From any thread: around a gRPC call whose reaction uses the pool.
  void CallBegins();
  void CallEnds();

 private:
  LinkPool() = default;

  size_t unproved_ = 0;
  Mutex mu_;
  CondVar no_calls_;
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
  // The guard tells the loop what ended, so it goes first.
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<FrameGuard> guard_;
};

}  // namespace creel
