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
  // Mounts made on the host below `source` later appear in the container too.
  bool slave = false;
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
// that turns it into the engine's words; capabilities are always all dropped but `add_capabilities`,
// no-new-privileges and a read-only root always hold, engine logs are always off, and image
// ENTRYPOINT, HEALTHCHECK and ENV are always overridden.
struct ContainerConfig {
  std::string name;
  std::string image;
  std::string runtime;  // empty: the engine's default
  std::vector<std::string> entrypoint;
  std::vector<std::string> command;
  std::string user = "0:0";
  std::string working_dir = "/";
  std::string hostname = "sandbox";
  // The whole environment of PID 1. Names that the image sets and this does not are set to empty.
  std::map<std::string, std::string> env;
  std::map<std::string, std::string> labels;

  std::vector<std::string> add_capabilities;
  std::string seccomp_profile;   // JSON text, never empty
  std::string apparmor_profile;  // empty: not asked for
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
};

}  // namespace creel
