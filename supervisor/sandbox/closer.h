#pragma once

#include <cstddef>
#include <memory>

#include "supervisor/base/unique_fd.h"

namespace creel {

// Closes descriptors whose close may block. A peer can put descriptors of its own choice into a
// Unix socket, and the last close of one (a lingering TCP socket, a huge unlinked file) is then
// done by whoever closes the socket or reads past them: not by a thread that serves others.
// Thread-safe.
class Closer {
 public:
  Closer();
  // Waits for at most a second; what still blocks then is left to its thread.
  ~Closer();
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;

  void Close(UniqueFd fd);
  // Descriptors that wait to be closed or are being closed.
  [[nodiscard]] size_t backlog() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace creel
