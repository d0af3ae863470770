#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace creel {

// A folder or file of the host that a container sees.
struct BindMount {
  std::string source;  // absolute, links already resolved
  std::string target;  // absolute, in the container
  bool read_only = true;
  // Mounts made on the host below `source`, before or later, appear in the container too, with the
  // flags that they have on the host; `read_only` holds for `source` itself alone.
  bool slave = false;
  // Mounts that are below `source` when the container is made are seen too; without it there is an
  // empty folder in their place. `read_only` then holds for all of them, which engines before API
  // 1.44 cannot do and are refused.
  bool recursive = false;
};

// A sized tmpfs.
struct TmpfsMount {
  std::string target;
  uint64_t size_bytes = 0;
  uint32_t mode = 01777;
  uint32_t uid = 0;
  uint32_t gid = 0;
  bool exec = false;
};

// One rate for one block device, bytes or operations a second.
struct DeviceRate {
  std::string path;  // such as /dev/vda
  uint64_t rate = 0;
};

// Everything that makes a container, as plain data. `ToEngineJson` (engine room) is the only place
// that turns it into the engine's words; capabilities are always all dropped but
// `add_capabilities`, no-new-privileges and a read-only root always hold, engine logs are always
// off, image ENTRYPOINT, HEALTHCHECK and ENV are always overridden, and a stop is a kill at once.
struct ContainerConfig {
  std::string name;
  // Give the id ("sha256:…") of the image that `image_env` and `image_volumes` were read from, as a
  // tag may name another one by now.
  std::string image;
  std::string runtime;                  // empty: the engine's default
  std::vector<std::string> entrypoint;  // never empty
  std::vector<std::string> command;
  std::string user = "0:0";
  std::string working_dir = "/";
  std::string hostname = "sandbox";
  // The whole environment of PID 1, but for a HOME that the runtime makes up where there is none.
  std::map<std::string, std::string> env;
  // ENV of the image, as in ImageInfo: names that are here and not in `env` are taken out.
  std::vector<std::string> image_env;
  std::map<std::string, std::string> labels;

  std::vector<std::string> add_capabilities;
  std::string seccomp_profile;   // JSON text, never empty
  std::string apparmor_profile;  // empty: not asked for
  // With "none" the engine sets up no network at all, which halves the time of a start. The
  // container has a loopback interface, and the image's own /etc/hosts and /etc/resolv.conf: bind
  // an /etc/hosts if `localhost` is to resolve in any image.
  std::string network_mode = "none";
  std::string ipc_mode = "private";
  std::string cgroupns_mode = "private";

  std::vector<BindMount> binds;
  std::vector<TmpfsMount> tmpfs;
  // VOLUMEs that the image declares: each is covered by a tiny read-only tmpfs.
  std::vector<std::string> image_volumes;

  int64_t memory_bytes = 0;  // swap is set to the same, so none comes on top
  int64_t nano_cpus = 0;
  int64_t pids_limit = 0;
  uint64_t shm_bytes = 0;
  uint16_t blkio_weight = 0;  // 10 to 1000; 0: not set
  std::vector<DeviceRate> read_bps;
  std::vector<DeviceRate> write_bps;
  uint64_t nofile_soft = 1024;
  uint64_t nofile_hard = 4096;
  int oom_score_adj = 0;

  // The engine makes a container even if it cannot keep a limit, and merely warns. Creating one
  // fails on any warning that contains none of these.
  std::vector<std::string> accepted_warnings;
};

}  // namespace creel
