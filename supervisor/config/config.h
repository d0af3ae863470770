#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervisor/config/egress_config.h"
#include "supervisor/config/policy_config.h"
#include "supervisor/config/record_config.h"

namespace creel {

// Which sessions get a sandbox.
enum class SandboxMode {
  kOff,      // none: every session runs on the host (a concession)
  kNonMain,  // all but the owner's main session (default)
  kAll,
};

// Which sessions share a sandbox.
enum class SandboxScope {
  kSession,  // one each (default)
  kAgent,    // one for all sessions of an agent
  kShared,   // one for all
};

enum class WorkspaceAccess { kNone, kReadOnly, kReadWrite };

// How the engine is reached.
struct EngineConfig {
  // `unix:///path` or `tcp://host:port`. Empty: $DOCKER_HOST, else unix:///var/run/docker.sock.
  std::string host;
  // PEM files for `tcp://`: the engine's CA, our certificate and its key. All three or none.
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  std::chrono::milliseconds timeout{30'000};
  bool operator==(const EngineConfig&) const = default;
};

struct PathsConfig {
  std::string run_dir = "/run/creel";
  std::string state_dir = "/var/lib/creel";
  // The shim's binary. Empty: `creel-shim` beside creeld, else /usr/lib/creel/creel-shim.
  std::string shim;
  bool operator==(const PathsConfig&) const = default;
};

// A listening socket's owner and mode.
struct DoorConfig {
  std::string path;   // empty: gateway.sock or operator.sock in run_dir
  std::string group;  // empty: root's group, or that of the user who runs creeld
  uint32_t mode = 0660;
  bool operator==(const DoorConfig&) const = default;
};

struct LimitsConfig {
  uint64_t memory_bytes = 1ull << 30;
  double cpus = 1.0;
  uint32_t pids = 256;
  uint64_t open_files = 1024;
  uint64_t tmp_bytes = 256ull << 20;  // /tmp
  uint64_t run_bytes = 16ull << 20;   // /run
  uint64_t shm_bytes = 64ull << 20;   // /dev/shm
  uint64_t workspace_bytes = 2ull << 30;
  uint16_t blkio_weight = 100;
  uint64_t read_bps = 0;  // bytes a second from the state folder's device; 0: not limited
  uint64_t write_bps = 0;
  uint64_t spool_bytes = 16ull << 20;  // output kept per process
  uint64_t free_space_floor_bytes = 1ull << 30;
  bool operator==(const LimitsConfig&) const = default;
};

// Makes the memory file systems small enough for the memory, for a sandbox that is to be made:
// together they take at most half of it.
void FitToMemory(LimitsConfig& limits);

struct SandboxConfig {
  SandboxMode mode = SandboxMode::kNonMain;
  SandboxScope scope = SandboxScope::kSession;
  WorkspaceAccess workspace_access = WorkspaceAccess::kNone;
  std::string image = "creel-sandbox:latest";
  std::string runtime;  // empty: the engine's default
  std::string workdir = "/workspace";
  // Folders of the host below which a gateway may name a workspace. Empty: none may be named.
  std::vector<std::string> workspace_roots;
  // Paths below a given workspace that are mounted read-only, as the host may run what is there.
  std::vector<std::string> protect{".git/hooks", ".git/config", ".envrc", ".vscode", ".idea"};
  std::map<std::string, std::string> env;
  // First of the tool uids, and how many there are.
  uint32_t tool_uid_base = 2'000'000;
  uint32_t tool_uid_count = 65'536;
  LimitsConfig limits;
  bool operator==(const SandboxConfig&) const = default;
};

// Containers that are started before anybody asks for them.
struct WarmPoolConfig {
  // As many as were opened lately; else `size`.
  bool automatic = true;
  uint32_t size = 0;
  uint32_t refill_rate = 60;  // made in a minute
  uint64_t memory_ceiling_bytes = 256ull << 20;
  bool operator==(const WarmPoolConfig&) const = default;
};

struct SessionsConfig {
  uint32_t max = 200;
  uint32_t max_per_sender = 20;
  uint32_t opens_per_minute = 120;
  std::chrono::seconds idle_timeout{24 * 3600};
  std::chrono::seconds max_age{7 * 24 * 3600};
  std::chrono::seconds pause_after{600};  // 0: never
  bool pause_running = false;
  WarmPoolConfig warm_pool;
  bool operator==(const SessionsConfig&) const = default;
};

struct LogConfig {
  std::string level = "info";
  bool journald = false;  // priority prefixes instead of times and colours
  bool operator==(const LogConfig&) const = default;
};

// Things that are weaker than they should be and that the operator has accepted by name. Without
// the name creeld refuses to start, or the sandbox to open.
//   no-sized-workspace   workspaces of Creel's own are watched, not sized
//   no-idmap             a given folder's owner becomes the tool uid
//   tool-root            tools run as uid 0 (a given folder that belongs to root)
//   gateway-is-operator  the gateway's uid can open operator.sock
//   no-apparmor          the host has AppArmor and the engine does not use it
//   no-seccomp           the engine or runtime does not apply seccomp profiles
//   mode-off             sandbox.mode is off
//   egress-no-tls        tunnels of a host rule may carry what is not TLS
//   egress-no-sni        tunnels of a host rule may leave out the name
//   rootless-engine, userns-remap, no-blkio, no-pids-limit, no-memory-limit
extern const std::vector<std::string> kConcessions;

// Where a value of the configuration stands.
struct Origin {
  std::string file;
  int line = 0;
  std::string value;       // as it stands there, cut at 256 bytes
  std::string source_key;  // its key in that file, if it has another name there
};

// Something in the gateway's own file that was not taken over.
struct IgnoredKey {
  std::string key;
  int line = 0;
  std::string why;
};

// Where the values came from and what else the gateway's file told. Another file with the same
// values is the same configuration.
struct Provenance {
  std::map<std::string, Origin> origins;  // by key
  std::vector<IgnoredKey> ignored;
  // The gateway's session.dmScope; empty if it does not say.
  std::string dm_scope;
  // Values of the gateway's keys and tokens, which must never leave in a reply.
  std::vector<std::string> secrets;
  bool operator==(const Provenance&) const { return true; }
};

// The whole configuration, checked. See docs/configuration.md.
struct Config {
  std::string file;  // empty: defaults
  EngineConfig engine;
  PathsConfig paths;
  DoorConfig gateway;
  // Uids that may connect to gateway.sock besides root; empty: whoever its mode lets in.
  std::vector<uint32_t> gateway_uids;
  std::string gateway_import;  // the gateway's own file; empty: none
  DoorConfig operator_door;
  SandboxConfig sandbox;
  SessionsConfig sessions;
  PolicyConfig policy;
  EgressConfig egress;
  LogConfig log;
  RecordConfig audit;
  IncidentConfig incident;
  std::set<std::string> concessions;
  Provenance provenance;
  bool operator==(const Config&) const = default;
};

}  // namespace creel
