#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace creel {

// Looks at workspaces that have no size of their own, all of them in one thread: every few seconds,
// and never for more than a tenth of its time. What is written between two looks is not stopped, so
// the bound is approximate.
class WorkspaceWatch {
 public:
  struct Watched {
    std::string folder;
    // Bytes that it may hold, or, with `grown`, by which it may grow from now on.
    uint64_t limit_bytes = 0;
    bool grown = false;
    // Free space that the disk must keep.
    uint64_t floor_bytes = 0;
    // Called from the watch's thread at every look that finds too much, with a sentence for people.
    // May block.
    std::function<void(const std::string& why)> over;
  };

  // The one of this process; its thread starts with the first watch and ends with the last.
  static WorkspaceWatch& Shared();

  // Watches until the returned value is destroyed, which waits for an `over` that runs in another
  // thread.
  [[nodiscard]] std::shared_ptr<void> Watch(Watched watched);

 private:
  struct State;
  WorkspaceWatch();
  const std::shared_ptr<State> state_;
};

}  // namespace creel
