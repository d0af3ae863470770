#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/sandbox/frame_guard.h"

namespace creel {

// A peer that was dropped from a link.
struct DroppedPeer {
  std::chrono::system_clock::time_point at;
  std::string reason;
};

// The connection to one sandbox's shim: listens in the sandbox's directory until the shim has
// called and proved itself, then stops listening; listens again when the connection ends.
// Thread-safe. Callbacks come from threads of the link's own pool and must not block.
class ShimLink {
 public:
  struct Options {
    std::string directory;   // <run>/sandboxes/<id>; made by the caller, mounted at /run/creel
    std::string sandbox_id;
    std::string key;         // 32 bytes
    bool first = true;       // the shim has not got its key yet
    shim::v1::SandboxSetup setup;  // sent together with the key
    // Uid that the peer's credentials must show; unset: not checked (runtimes that hide it).
    std::optional<uint32_t> peer_uid;
    FrameBounds bounds;
  };
  struct Callbacks {
    // The shim has proved itself; `stub` serves until the matching on_down. `version` is its own.
    std::function<void(std::shared_ptr<shim::v1::Shim::StubInterface> stub,
                       const std::string& version)>
        on_up;
    // The connection ended; the link listens again by itself. OK: plain end of file.
    std::function<void(const absl::Status& why)> on_down;
    // A peer was refused or broke a bound.
    std::function<void(const DroppedPeer& peer)> on_dropped;
  };

  // `pool` and `guard` must outlive the link.
  static absl::StatusOr<std::unique_ptr<ShimLink>> Listen(class LinkPool& pool, Options options,
                                                          Callbacks callbacks);
  // Stops listening, drops the connection, and returns when no callback runs any more.
  virtual ~ShimLink() = default;

  // Drops the present connection with this reason.
  virtual void Drop(const absl::Status& why) = 0;
};

// The threads and the guard that all links share.
class LinkPool {
 public:
  static absl::StatusOr<std::unique_ptr<LinkPool>> Start();
  virtual ~LinkPool() = default;
  virtual FrameGuard& guard() = 0;
};

}  // namespace creel
