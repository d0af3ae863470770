#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/sandbox/frame_parser.h"
#include "supervisor/sandbox/link_pool.h"
#include "supervisor/base/unix_socket.h"

namespace grpc {
class Server;
}

namespace creel {

// A Unix socket at which a gRPC server is reached: gateway.sock or operator.sock. Accepts, checks
// who connects, and hands the connection to the server from behind the frame guard. Thread-safe.
class DoorListener {
 public:
  struct Options {
    UnixAddress address;
    // Who may connect; unset: whoever the mode of the socket lets in.
    std::optional<std::vector<uint32_t>> allowed_uids;
    // Connections at once. The second bound keeps one user from taking all.
    size_t max_connections = 256;
    size_t max_connections_per_uid = 64;
    // `expect_preface` is set by the listener.
    FrameBounds bounds;
    // A peer was refused or broke a bound: who and why. From the pool's loop; must not block.
    std::function<void(const PeerCredentials& peer, const std::string& reason)> on_dropped;
  };

  // `pool` and `server` must outlive the listener. The server needs no port of its own.
  static absl::StatusOr<std::unique_ptr<DoorListener>> Listen(LinkPool& pool, grpc::Server* server,
                                                              Options options);
  // Stops listening and drops what is connected.
  ~DoorListener();
  DoorListener(const DoorListener&) = delete;
  DoorListener& operator=(const DoorListener&) = delete;

  // Takes no more connections; calls under way go on. For a graceful Shutdown of the server.
  void StopListening();

  // Who makes a call: `grpc_peer` is ServerContext::peer(). Valid as long as the call has not been
  // finished, as gRPC keeps a connection's descriptor open for its calls; nothing is found once the
  // connection has ended.
  [[nodiscard]] std::optional<PeerCredentials> CallerOf(std::string_view grpc_peer) const;

  [[nodiscard]] size_t connections() const;

 private:
  class Impl;
  explicit DoorListener(std::shared_ptr<Impl> impl);

  std::shared_ptr<Impl> impl_;
};

}  // namespace creel
