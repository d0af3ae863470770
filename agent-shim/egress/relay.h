#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent-shim/exec/event_loop.h"
#include "supervisor/base/flow.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// The tools' way out: takes their connections on loopback ports and carries each, byte for byte, to
// the supervisor's socket. It understands nothing of what it carries; whoever is at the other end
// decides. On a thread of its own, so that no traffic takes time from commands.
class Relay {
 public:
  struct Options {
    std::string socket = "/run/creel/egress.sock";
    // On 127.0.0.1; 0: any free one. The supervisor tells HTTP from SOCKS by the first byte.
    std::vector<uint16_t> ports{};
    // Connections at once; those that come then wait in the kernel. A connection takes two
    // descriptors, and up to four more while bytes are on their way.
    size_t max_connections = 1024;
    // How long a connection waits for a supervisor that is away or has no time.
    std::chrono::milliseconds patience{3000};
  };

  // Listens and carries from here on. kAlreadyExists: a port is taken.
  static absl::StatusOr<std::unique_ptr<Relay>> Start(Options options);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // The ports that it listens on.
  [[nodiscard]] const std::vector<uint16_t>& ports() const { return bound_; }
  [[nodiscard]] size_t connections() const;

 private:
  class Carried;
  struct Listener {
    UniqueFd fd;
    uint64_t watch = 0;
  };

  explicit Relay(Options options) : options_(std::move(options)) {}
  absl::Status Listen(uint16_t port);
  void Accept(size_t index);
  void Ended(uint64_t id);

  const Options options_;
  FlowPipes pipes_{16};  // of the loop's thread
  std::vector<Listener> listeners_;
  std::vector<uint16_t> bound_;
  mutable Mutex mu_;
  uint64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<uint64_t, std::shared_ptr<Carried>> carried_ ABSL_GUARDED_BY(mu_);
  // Last to be made and first to be stopped: its callbacks use all of the above.
  std::unique_ptr<EventLoop> loop_;
};

}  // namespace creel::shim
