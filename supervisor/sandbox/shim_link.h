#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/status.h"
#include "supervisor/sandbox/frame_parser.h"
#include "supervisor/sandbox/link_pool.h"

namespace creel {

// A peer that was dropped from a link or a door.
struct DroppedPeer {
  std::chrono::system_clock::time_point at;
  std::string reason;
};

// Whether a supervisor of version `ours` speaks to a shim of version `theirs`: the same major
// version, and its minor version or the one before. kFailedPrecondition says why not.
absl::Status CheckShimVersion(std::string_view ours, std::string_view theirs);

// The connection to one sandbox's shim: listens in the sandbox's directory until the shim has
// called and proved itself, then stops listening; listens again when the connection ends.
// Thread-safe. Callbacks come from the loop of the link's pool and must not block; they may destroy
// the link.
class ShimLink {
 public:
  struct Options {
    std::string directory;  // <run>/sandboxes/<id>; made by the caller, mounted at /run/creel
    std::string sandbox_id;
    std::string key;    // 32 bytes
    bool first = true;  // the shim has not got its key yet
    // The shim is kept waiting, and told nothing, until Begin.
    bool ahead = false;
    shim::v1::SandboxSetup setup;  // sent together with the key
    // Uid that the peer's credentials must show; unset: not checked (runtimes that hide it).
    std::optional<uint32_t> peer_uid;
    // The container's init process as this process numbers it; the peer must be it. 0: not known
    // at present, and not checked. Must not block.
    std::function<int()> expected_pid;
    // Who may connect: the owner of the socket's file is PID 1's uid on the host.
    uint32_t socket_mode = 0600;
    std::optional<uint32_t> socket_owner;
    FrameBounds bounds;
  };
  struct Callbacks {
    // The shim has proved itself; `stub` serves until the matching on_down. `version` is its own.
    std::function<void(std::shared_ptr<shim::v1::Shim::StubInterface> stub,
                       const std::string& version)>
        on_up;
    // With `ahead`: a peer that may be the shim is here and waits; or it has gone again.
    std::function<void(bool here)> on_waiting;
    // The connection ended; the link listens again by itself. OK: plain end of file.
    // kPermissionDenied: the peer passed descriptors; the link does not listen any more.
    std::function<void(const absl::Status& why)> on_down;
    // A peer was refused or broke a bound.
    std::function<void(const DroppedPeer& peer)> on_dropped;
  };

  // `pool` must outlive the link.
  static absl::StatusOr<std::unique_ptr<ShimLink>> Listen(LinkPool& pool, Options options,
                                                          Callbacks callbacks);
  // Stops listening, drops the connection, and returns when no callback runs any more.
  ~ShimLink();
  ShimLink(const ShimLink&) = delete;
  ShimLink& operator=(const ShimLink&) = delete;

  // With `ahead`: gives key and `setup` to the peer that waits, or to the next that comes.
  void Begin(shim::v1::SandboxSetup setup);

  // Drops the present connection with this reason, which on_down then gets.
  void Drop(const absl::Status& why);

 private:
  class Impl;
  explicit ShimLink(std::shared_ptr<Impl> impl);

  std::shared_ptr<Impl> impl_;
};

}  // namespace creel
