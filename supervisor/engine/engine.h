#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/engine/container_config.h"

namespace creel {

// What the engine says of itself.
struct EngineInfo {
  std::string version;         // "20.10.24"
  std::string api_version;     // the one negotiated, "1.41"
  std::string cgroup_version;  // "1" or "2"
  std::string default_runtime;
  std::vector<std::string> runtimes;
  std::vector<std::string> security_options;  // "name=seccomp,profile=default", "name=apparmor", …
  std::string storage_driver;
  std::string root_dir;
  std::string operating_system;
  std::string kernel_version;
  bool rootless = false;
  bool live_restore = false;
  int cpus = 0;
  int64_t memory_bytes = 0;
  std::vector<std::string> warnings;
};

struct ImageInfo {
  std::string id;  // "sha256:…"
  std::vector<std::string> env{};
  std::vector<std::string> volumes{};
  std::vector<std::string> entrypoint{};
  std::string architecture{};
  int64_t size_bytes = 0;
};

enum class ContainerState { kCreated, kRunning, kPaused, kRestarting, kRemoving, kExited, kDead };

struct ContainerInfo {
  std::string id;
  std::string name;  // without the leading slash
  std::string image;
  std::map<std::string, std::string> labels;
  ContainerState state = ContainerState::kCreated;
  int pid = 0;  // of PID 1 in the host's pid namespace; 0 when it does not run
  int exit_code = 0;
  bool oom_killed = false;
  std::string error;
  std::string json;  // the engine's own answer
};

struct ContainerStats {
  std::chrono::system_clock::time_point at;
  uint64_t cpu_total_ns = 0;
  uint64_t memory_bytes = 0;  // without page cache that can be dropped
  uint64_t memory_limit_bytes = 0;
  uint64_t pids = 0;
  uint64_t pids_limit = 0;
  uint64_t block_read_bytes = 0;
  uint64_t block_write_bytes = 0;
};

struct ProcessRow {
  int pid = 0;  // in the host's pid namespace
  uint32_t uid = 0;
  std::string command;
};

// What can be changed of a container that runs; 0 leaves that as it is.
struct ContainerLimits {
  int64_t memory_bytes = 0;  // no swap on top
  int64_t nano_cpus = 0;
  int64_t pids = 0;
};

enum class ChangeKind { kModified, kAdded, kDeleted };

struct FileChange {
  ChangeKind kind = ChangeKind::kModified;
  std::string path;
};

struct EngineEvent {
  std::string type;    // "container", …
  std::string action;  // "die", "destroy", "oom", "pause", …
  std::string id;
  std::map<std::string, std::string> attributes;  // the container's labels are among them
  std::chrono::system_clock::time_point at;
};

// The Docker Engine, as much of it as Creel needs. Thread-safe; calls block until their deadline.
// Errors that any call may end with:
//   kUnavailable        nothing answers at the engine's address, or it went away in between
//   kDeadlineExceeded   it did not answer in time
//   kFailedPrecondition its API versions and ours do not meet; both ranges are in the message
//   kInternal           it answered with an error of its own, which is passed on, or with what is
//                       no answer
//   kInvalidArgument    it refuses what was asked for, or an id or name could not be one
//   kPermissionDenied   an authorization plugin of the engine refuses us
// A container or image that is not there is kNotFound; a name that is taken is kAlreadyExists; a
// container in the wrong state (paused twice, not running) is kFailedPrecondition.
class Engine {
 public:
  // Takes some bytes; returns false to end the transfer.
  using ByteSink = std::function<bool(std::string_view)>;
  // Where the engine's own progress lines go.
  using LineSink = std::function<void(std::string_view)>;
  // Returns false to end the stream.
  using EventSink = std::function<bool(const EngineEvent&)>;

  virtual ~Engine() = default;

  virtual absl::Status Ping(Deadline deadline) = 0;
  virtual absl::StatusOr<EngineInfo> Info(Deadline deadline) = 0;

  virtual absl::StatusOr<ImageInfo> InspectImage(const std::string& image, Deadline deadline) = 0;
  // Builds from `context_tar`, a tar archive that holds a Dockerfile. `lines` may be empty.
  virtual absl::Status BuildImage(std::string_view context_tar, const std::string& tag,
                                  const LineSink& lines, Deadline deadline) = 0;

  // Returns the container's id. Nothing is left behind on failure.
  //   kNotFound            the image is not on this host
  //   kFailedPrecondition  the engine made it, and warned that some of `config` would not hold
  virtual absl::StatusOr<std::string> CreateContainer(const ContainerConfig& config,
                                                      Deadline deadline) = 0;
  // One that runs already is no error.
  virtual absl::Status StartContainer(const std::string& id, Deadline deadline) = 0;
  virtual absl::StatusOr<ContainerInfo> InspectContainer(const std::string& id,
                                                         Deadline deadline) = 0;
  // Running or not. `label` is "key" or "key=value". `json` and `pid` are not filled in.
  virtual absl::StatusOr<std::vector<ContainerInfo>> ListContainers(const std::string& label,
                                                                    Deadline deadline) = 0;
  virtual absl::Status PauseContainer(const std::string& id, Deadline deadline) = 0;
  virtual absl::Status UnpauseContainer(const std::string& id, Deadline deadline) = 0;
  // Other limits from now on, also for what runs in it.
  //   kInternal            among others, its processes use more memory than they now may
  //   kFailedPrecondition  the engine did it, and warned that some of it does not hold
  virtual absl::Status UpdateContainer(const std::string& id, const ContainerLimits& limits,
                                       Deadline deadline) = 0;
  // `signal` by name, such as "SIGKILL".
  virtual absl::Status KillContainer(const std::string& id, const std::string& signal,
                                     Deadline deadline) = 0;
  // Waits for the end and returns the exit status; of a container that was never started, 0.
  virtual absl::StatusOr<int> WaitContainer(const std::string& id, Deadline deadline) = 0;
  // Kills it if it runs, and removes its anonymous volumes. One that is gone already is no error.
  virtual absl::Status RemoveContainer(const std::string& id, Deadline deadline) = 0;
  virtual absl::StatusOr<std::vector<ProcessRow>> Top(const std::string& id, Deadline deadline) = 0;
  // kFailedPrecondition: it does not run.
  virtual absl::StatusOr<ContainerStats> Stats(const std::string& id, Deadline deadline) = 0;
  virtual absl::StatusOr<std::vector<FileChange>> Changes(const std::string& id,
                                                          Deadline deadline) = 0;
  // The tar archive of `path`. The engine does not see tmpfs mounts. kCancelled: `sink` ended it.
  virtual absl::Status GetArchive(const std::string& id, const std::string& path,
                                  const ByteSink& sink, Deadline deadline) = 0;

  // Hands over container events as they come, until the sink returns false or `cancelled`, which
  // is asked at least every 200 ms, returns true (both OK), or the engine goes away (kUnavailable).
  // `connected` is called once the stream stands: no event that happens after it is missed, and
  // some of the second before may be told too. `label` as in ListContainers. `connected` and
  // `cancelled` may be empty.
  virtual absl::Status StreamEvents(const std::string& label, const EventSink& sink,
                                    const std::function<void()>& connected,
                                    const std::function<bool()>& cancelled) = 0;

  // Its part of the processors where they do not suffice; 1024 is what a container gets unasked.
  virtual absl::Status SetCpuShares(const std::string& id, uint64_t shares, Deadline deadline) {
    static_cast<void>(id);
    static_cast<void>(shares);
    static_cast<void>(deadline);
    return absl::UnimplementedError("shares of a container cannot be changed here");
  }
};

}  // namespace creel
