#include "supervisor/engine/container_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <vector>

namespace creel {
namespace {

using nlohmann::json;

// The first version in which a read-only bind can be made so with all that is mounted below it.
constexpr ApiVersion kReadOnlyRecursive{1, 44};

absl::Status Refuse(std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("container: {}", what));
}

// An absolute path that names one place: no `.`, no `..`, no empty part.
bool IsPlainPath(const std::string& path) {
  return path.starts_with('/') && path.find('\0') == std::string::npos &&
         std::filesystem::path(path).lexically_normal() == std::filesystem::path(path) &&
         (path == "/" || !path.ends_with('/'));
}

// A path that can stand in the engine's colon and comma separated words.
bool IsTarget(const std::string& path) {
  return IsPlainPath(path) && path != "/" && path.find_first_of(":,") == std::string::npos;
}

absl::Status Check(const ContainerConfig& config) {
  if (config.image.empty()) {
    return Refuse("no image");
  }
  if (config.entrypoint.empty() || config.entrypoint.front().empty()) {
    return Refuse("no entrypoint, so that the image's own would run");
  }
  const json profile = json::parse(config.seccomp_profile, nullptr, false);
  if (!profile.is_object()) {
    return Refuse("the seccomp profile is not a JSON object");
  }
  for (const auto& [name, value] : config.env) {
    if (name.empty() || name.find_first_of(std::string_view("=\0", 2)) != std::string::npos ||
        value.find('\0') != std::string::npos) {
      return Refuse("an environment variable has no name, '=' in its name, or a NUL byte");
    }
  }
  std::set<std::string> targets;
  for (const BindMount& bind : config.binds) {
    if (!IsPlainPath(bind.source) || !IsTarget(bind.target)) {
      return Refuse(fmt::format("bind of '{}' on '{}': not two plain absolute paths", bind.source,
                                bind.target));
    }
    if (!targets.insert(bind.target).second) {
      return Refuse(fmt::format("two mounts on '{}'", bind.target));
    }
  }
  for (const TmpfsMount& tmpfs : config.tmpfs) {
    if (!IsTarget(tmpfs.target) || tmpfs.size_bytes == 0) {
      return Refuse(fmt::format("tmpfs on '{}': no plain absolute path, or no size", tmpfs.target));
    }
    if (!targets.insert(tmpfs.target).second) {
      return Refuse(fmt::format("two mounts on '{}'", tmpfs.target));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<json> Bind(const BindMount& bind, ApiVersion version) {
  // Without recursion a read-only bind has no part that is writable after all. A slave needs it for
  // what is mounted in its place already.
  json options = {{"Propagation", bind.slave ? "rslave" : "rprivate"},
                  {"NonRecursive", !bind.slave && !bind.recursive}};
  if (bind.read_only && bind.slave) {
    // Newer engines would make what is mounted below read-only as well, older ones not.
    if (version >= kReadOnlyRecursive) {
      options["ReadOnlyNonRecursive"] = true;
    }
  } else if (bind.read_only && bind.recursive) {
    if (version < kReadOnlyRecursive) {
      return absl::FailedPreconditionError(fmt::format(
          "'{}' cannot be mounted read-only with all that is mounted below it: the engine speaks "
          "API {}, which is older than {}",
          bind.source, version.ToString(), kReadOnlyRecursive.ToString()));
    }
    options["ReadOnlyForceRecursive"] = true;
  }
  return json{{"Type", "bind"},
              {"Source", bind.source},
              {"Target", bind.target},
              {"ReadOnly", bind.read_only},
              {"BindOptions", std::move(options)}};
}

// A VOLUME would become a folder of the host, writable and without a bound. What is already mounted
// on there by `config` stays; the engine makes no volume where it finds another mount.
absl::StatusOr<json> CoveredVolumes(const ContainerConfig& config) {
  std::set<std::string> covered;
  for (const BindMount& bind : config.binds) {
    covered.insert(bind.target);
  }
  for (const TmpfsMount& tmpfs : config.tmpfs) {
    covered.insert(tmpfs.target);
  }
  json mounts = json::array();
  for (const std::string& volume : config.image_volumes) {
    std::string target = std::filesystem::path("/" + volume).lexically_normal();
    while (target.size() > 1 && target.ends_with('/')) {
      target.pop_back();
    }
    while (target.starts_with("//")) {
      target.erase(0, 1);
    }
    if (!IsTarget(target)) {
      return absl::FailedPreconditionError(fmt::format(
          "image '{}' declares a VOLUME that cannot be covered: '{}'", config.image, volume));
    }
    if (covered.insert(target).second) {
      mounts.push_back({{"Type", "tmpfs"},
                        {"Target", target},
                        {"ReadOnly", true},
                        {"TmpfsOptions", {{"SizeBytes", 4096}, {"Mode", 0555}}}});
    }
  }
  return mounts;
}

json TmpfsMap(const ContainerConfig& config) {
  json map = json::object();
  for (const TmpfsMount& tmpfs : config.tmpfs) {
    map[tmpfs.target] = fmt::format("rw,nosuid,nodev,{},size={},mode={:o},uid={},gid={}",
                                    tmpfs.exec ? "exec" : "noexec", tmpfs.size_bytes, tmpfs.mode,
                                    tmpfs.uid, tmpfs.gid);
  }
  return map;
}

// The engine adds the image's ENV and some of its own to what it is given. A name without '=' takes
// the variable out.
json Environment(const ContainerConfig& config) {
  std::set<std::string> unwanted{"HOSTNAME", "PATH"};
  for (const std::string& entry : config.image_env) {
    unwanted.insert(entry.substr(0, entry.find('=')));
  }
  json list = json::array();
  for (const auto& [name, value] : config.env) {
    list.push_back(fmt::format("{}={}", name, value));
    unwanted.erase(name);
  }
  for (const std::string& name : unwanted) {
    if (!name.empty()) {
      list.push_back(name);
    }
  }
  return list;
}

json Rates(const std::vector<DeviceRate>& rates) {
  json list = json::array();
  for (const DeviceRate& rate : rates) {
    list.push_back({{"Path", rate.path}, {"Rate", rate.rate}});
  }
  return list;
}

json Ulimit(const char* name, uint64_t soft, uint64_t hard) {
  return {{"Name", name}, {"Soft", soft}, {"Hard", hard}};
}

// An engine takes 0 for "as by default", so a limit that is not asked for is left out.
void SetLimits(const ContainerConfig& config, json& host) {
  if (config.memory_bytes > 0) {
    host["Memory"] = config.memory_bytes;
    host["MemorySwap"] = config.memory_bytes;
  }
  if (config.nano_cpus > 0) {
    host["NanoCpus"] = config.nano_cpus;
  }
  if (config.pids_limit > 0) {
    host["PidsLimit"] = config.pids_limit;
  }
  if (config.shm_bytes > 0) {
    host["ShmSize"] = config.shm_bytes;
  }
  if (config.blkio_weight > 0) {
    host["BlkioWeight"] = config.blkio_weight;
  }
  if (!config.read_bps.empty()) {
    host["BlkioDeviceReadBps"] = Rates(config.read_bps);
  }
  if (!config.write_bps.empty()) {
    host["BlkioDeviceWriteBps"] = Rates(config.write_bps);
  }
}

}  // namespace

absl::StatusOr<std::string> ToEngineJson(const ContainerConfig& config, ApiVersion version) {
  RETURN_IF_ERROR(Check(config));
  json security = json::array({"no-new-privileges:true", "seccomp=" + config.seccomp_profile});
  if (!config.apparmor_profile.empty()) {
    security.push_back("apparmor=" + config.apparmor_profile);
  }
  ASSIGN_OR_RETURN(json mounts, CoveredVolumes(config));
  for (const BindMount& bind : config.binds) {
    ASSIGN_OR_RETURN(json mount, Bind(bind, version));
    mounts.push_back(std::move(mount));
  }
  json host = {
      {"ReadonlyRootfs", true},
      {"Privileged", false},
      {"CapDrop", json::array({"ALL"})},
      {"CapAdd", config.add_capabilities},
      {"SecurityOpt", std::move(security)},
      {"NetworkMode", config.network_mode},
      {"IpcMode", config.ipc_mode},
      {"CgroupnsMode", config.cgroupns_mode},
      {"OomScoreAdj", config.oom_score_adj},
      {"Ulimits", json::array({Ulimit("nofile", config.nofile_soft, config.nofile_hard),
                               Ulimit("core", 0, 0)})},
      {"Mounts", std::move(mounts)},
      {"Tmpfs", TmpfsMap(config)},
      {"LogConfig", {{"Type", "none"}, {"Config", json::object()}}},
      {"RestartPolicy", {{"Name", "no"}}},
      {"Init", false},
      {"AutoRemove", false},
  };
  SetLimits(config, host);
  if (!config.runtime.empty()) {
    host["Runtime"] = config.runtime;
  }
  const json body = {
      {"Image", config.image},
      {"Entrypoint", config.entrypoint},
      {"Cmd", config.command},
      {"Env", Environment(config)},
      {"Labels", config.labels},
      {"User", config.user},
      {"WorkingDir", config.working_dir},
      {"Hostname", config.hostname},
      {"Healthcheck", {{"Test", json::array({"NONE"})}}},
      // PID 1 has no handler for any signal: an engine that stops would wait for it in vain.
      {"StopSignal", "SIGKILL"},
      {"StopTimeout", 0},
      {"NetworkDisabled", config.network_mode == "none"},
      {"AttachStdin", false},
      {"AttachStdout", false},
      {"AttachStderr", false},
      {"OpenStdin", false},
      {"Tty", false},
      {"HostConfig", std::move(host)},
  };
  try {
    return body.dump();
  } catch (const json::exception& e) {
    return Refuse(fmt::format("not UTF-8 somewhere: {}", e.what()));
  }
}

std::string ToEngineJson(const ContainerLimits& limits) {
  json body = json::object();
  if (limits.memory_bytes > 0) {
    body["Memory"] = limits.memory_bytes;
    body["MemorySwap"] = limits.memory_bytes;
  }
  if (limits.nano_cpus > 0) {
    body["NanoCpus"] = limits.nano_cpus;
  }
  if (limits.pids > 0) {
    body["PidsLimit"] = limits.pids;
  }
  return body.dump();
}

}  // namespace creel
