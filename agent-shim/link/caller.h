#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// Connects to a Unix stream socket. kNotFound and kUnavailable: nobody listens there now.
absl::StatusOr<UniqueFd> Connect(const std::string& path);

// Calls the supervisor and calls again when the connection has ended. Serves one thread: the main
// one, which does nothing else but wait for the signal to end.
class Caller {
 public:
  struct Options {
    std::string path = "/run/creel/shim.sock";
    std::chrono::milliseconds first_delay{20};
    std::chrono::milliseconds last_delay{1000};
    // Readable when the shim is to end; -1: never.
    int stop_fd = -1;
  };
  // A connection stands; the descriptor is given away.
  using OnConnected = std::function<void(UniqueFd connection)>;
  // It has ended, and the next is about to be tried.
  using OnEnded = std::function<void()>;

  Caller(Options options, OnConnected on_connected, OnEnded on_ended);

  // Returns when `stop_fd` is readable.
  void Run();

 private:
  // Each returns false when it is time to stop.
  bool WaitForEnd(int connection);
  bool Wait(std::chrono::milliseconds delay);

  const Options options_;
  const OnConnected on_connected_;
  const OnEnded on_ended_;
};

}  // namespace creel::shim
