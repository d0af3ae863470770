#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/engine.h"
#include "supervisor/sandbox/process_table.h"
#include "supervisor/sandbox/shim_link.h"

namespace creel {

// What the host can do for sandboxes; found once at start. See host_abilities.h.
struct HostAbilities;
class AuditLog;

// What one sandbox is asked to be. Everything that must survive a restart is in here, and the store
// keeps it.
struct SandboxIdentity {
  std::string id;   // 16 hex digits; the container is named `creel-ID`
  std::string key;  // 32 random bytes, the shim's
  uint32_t tool_uid = 0;
  uint32_t tool_gid = 0;
  std::string image;
  std::string runtime;
  std::string workspace;  // a host folder given by the gateway; empty: Creel's own
  WorkspaceAccess access = WorkspaceAccess::kNone;
  std::map<std::string, std::string> env;  // for the tools, besides PATH, HOME, LANG
  LimitsConfig limits;
  std::string container_id;     // filled in by Create
  std::string spec_hash;        // filled in by Create, hex
  std::string shim_sha256;      // filled in by Create, hex
  std::string workspace_bound;  // filled in by Create: sized | watched | read-only
};

// Where a sandbox's way out is to be opened, and whose connections it takes.
struct EgressDoor {
  std::string directory;  // the link's
  std::string sandbox_id;
  uint32_t socket_mode = 0600;
  std::optional<uint32_t> peer_uid;  // unset: not to be seen here
  // The container's first process, or 0 while that is not known. May outlive the sandbox.
  std::function<int()> peer_pid;
};

class PooledSandbox;

enum class SandboxState { kRunning, kFrozen, kLost, kClosed };

// One container with its workspace, its link and its processes. Thread-safe.
class Sandbox {
 public:
  // What all sandboxes share; must outlive them.
  struct Host {
    Engine& engine;
    LinkPool& links;
    const Config& config;
    const HostAbilities& abilities;
    std::string install_id;   // the `creel.install` label: which supervisor's they are
    std::string shim_path;    // <state>/shim/<sha256>/creel-shim
    std::string shim_sha256;  // hex
    // What happens to sessions and their links is told here; null: nowhere (in tests).
    AuditLog* audit = nullptr;
    // Opens a sandbox's way out until the returned object goes; null where there is none. May be
    // called from several threads.
    std::function<absl::StatusOr<std::shared_ptr<void>>(const EgressDoor&)> open_egress{};
    // Ends what goes on through a sandbox's way out, and lets nothing through until it is restored.
    // Null where there is none; must not be called with locks held that the facts of egress take.
    std::function<void(const std::string& sandbox_id, const std::string& reason)> cut_egress{};
    std::function<void(const std::string& sandbox_id)> restore_egress{};
  };

  // Makes the container and waits until its shim has answered. On failure nothing is left behind.
  //   kNotFound            the image is not on this host; the message says how to get it
  //   kInvalidArgument     the workspace or another setting is not allowed
  //   kFailedPrecondition  a wall cannot be had here and no concession names it
  //   kResourceExhausted   out of disk, loop devices, …
  //   kUnavailable         the engine or the shim did not answer before `deadline`
  // On success `identity` has been filled in.
  static absl::StatusOr<std::shared_ptr<Sandbox>> Create(const Host& host,
                                                         SandboxIdentity& identity,
                                                         Deadline deadline);
  // Makes a container for a session that is not known yet, and waits until its shim has called; the
  // shim is told nothing. Of `identity` count id, key, tool uid, image, runtime and limits; what
  // Create fills in is filled in. Errors as Create, and nothing is left behind.
  static absl::StatusOr<std::unique_ptr<PooledSandbox>> MakeAhead(const Host& host,
                                                                  SandboxIdentity& identity,
                                                                  Deadline deadline);
  // Takes over a container that lives since before a restart.
  static absl::StatusOr<std::shared_ptr<Sandbox>> Adopt(const Host& host,
                                                        const SandboxIdentity& identity,
                                                        Deadline deadline);
  // Removes container, mounts, sockets and Creel's own workspace of a sandbox, whatever of it is
  // there. For those that live, and for the remains of those that do not. Can be repeated.
  static absl::Status Remove(const Host& host, const SandboxIdentity& identity, Deadline deadline);

  virtual ~Sandbox() = default;

  [[nodiscard]] virtual const SandboxIdentity& identity() const = 0;
  [[nodiscard]] virtual SandboxState state() const = 0;
  // Why it is frozen or lost; empty otherwise.
  [[nodiscard]] virtual std::string reason() const = 0;

  // The shim, while the link stands; else kUnavailable with the reason (which of container, shim
  // and engine went away). A link that is being made again is waited for by `WhenLinked`.
  virtual absl::StatusOr<std::shared_ptr<shim::v1::Shim::StubInterface>> shim() = 0;
  virtual ProcessTable& processes() = 0;

  // Stops all processes through the engine (retried), else through the freezer cgroup, else kills.
  // Returns "engine", "cgroup" or "killed".
  virtual absl::StatusOr<std::string> Freeze(const std::string& reason, Deadline deadline) = 0;
  // The same where many are frozen at once: through the control group first, if we can write it,
  // as the engine takes one container after the other.
  virtual absl::StatusOr<std::string> FreezeQuickly(const std::string& reason, Deadline deadline) {
    return Freeze(reason, deadline);
  }
  // What of the last freeze would not outlast a restart; empty: nothing.
  [[nodiscard]] virtual std::string freeze_warning() const { return {}; }
  virtual absl::Status Thaw(Deadline deadline) = 0;

  // Lets its processes stand still while nobody calls, which is no freeze: the state stays
  // kRunning, and Resume, or the next call of shim(), lets them go on. False, and nothing is done,
  // if it is in use: `idle` says that it is not, and is asked again once calls would see that it is
  // paused; with `with_running` left out, neither may a command or another process of the tools run
  // in it. What the engine cannot pause now stays awake.
  virtual absl::StatusOr<bool> PauseIdle(const std::function<bool()>& idle, bool with_running,
                                         Deadline deadline) {
    static_cast<void>(idle);
    static_cast<void>(with_running);
    static_cast<void>(deadline);
    return false;
  }
  [[nodiscard]] virtual bool paused() const { return false; }
  // In milliseconds, where we can write the control group; the engine is then told by SettleResume,
  // which nobody has to wait for. One that is not paused, or was frozen, is left as it is.
  virtual absl::Status Resume(Deadline deadline) {
    static_cast<void>(deadline);
    return absl::OkStatus();
  }
  virtual absl::Status SettleResume(Deadline deadline) {
    static_cast<void>(deadline);
    return absl::OkStatus();
  }
  [[nodiscard]] virtual bool unsettled() const { return false; }

  // Ends it and removes everything.
  virtual absl::Status Close(Deadline deadline) = 0;

  // The engine told that the container ended (`why` such as "container ended with exit code 137
  // (out of memory)"). Ends every waiting call.
  virtual void ContainerGone(const std::string& why) = 0;

  // Calls that are under way through this sandbox are told when it is lost, frozen or closed: each
  // returned registration's callback runs once with the reason. Destroying it unregisters.
  using LostCallback = std::function<void(const absl::Status&)>;
  virtual std::shared_ptr<void> OnLost(LostCallback callback) = 0;

  [[nodiscard]] virtual std::string shim_version() const = 0;
  [[nodiscard]] virtual std::vector<DroppedPeer> dropped_peers() const = 0;
  // Bytes used in the workspace; 0 where unknown.
  [[nodiscard]] virtual uint64_t WorkspaceUsed() const = 0;
  [[nodiscard]] virtual std::vector<BindMount> mounts() const = 0;
};

// A container that waits for its session: it is nobody's, nothing runs in it but a shim that has
// been told nothing, and it has no way out. It serves one session, once. Not thread-safe.
// Destroying it leaves the container for Sandbox::Remove.
class PooledSandbox {
 public:
  virtual ~PooledSandbox() = default;

  [[nodiscard]] virtual const SandboxIdentity& identity() const = 0;
  // Its shim still waits.
  [[nodiscard]] virtual bool ready() const = 0;
  // Whether a sandbox that is asked to be `wanted` can be made of it.
  [[nodiscard]] virtual bool Serves(const SandboxIdentity& wanted) const = 0;
  // The image it was made of, as the engine names it.
  [[nodiscard]] virtual const std::string& image_id() const = 0;
  // What it costs while it waits: its own processes, and the engine's one for it where that is
  // seen.
  [[nodiscard]] virtual uint64_t memory_bytes() const = 0;

  // Makes it the sandbox of `identity`, which has this one's id, key, uid and container: mounts its
  // workspace, opens its way out and hands the shim its key and setup. Not to be called twice.
  // After a failure the container is of no use; Sandbox::Remove takes it away. Errors as Create.
  virtual absl::StatusOr<std::shared_ptr<Sandbox>> Claim(SandboxIdentity& identity,
                                                         Deadline deadline) = 0;
};

}  // namespace creel
