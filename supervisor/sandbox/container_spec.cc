#include "supervisor/sandbox/container_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/sandbox/sandbox_paths.h"

namespace creel {
namespace {

constexpr char kPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr char kLang[] = "C.UTF-8";
// Descriptors of PID 1: a few for each of 512 commands. Tools get limits.open_files.
constexpr uint64_t kShimOpenFiles = 8192;
constexpr uint32_t kEgressPort = 3128;
constexpr uint32_t kEgressSocksPort = 1080;
// Connections that the shim takes beyond what the supervisor does, to wait there.
constexpr uint32_t kEgressWaiting = 64;

absl::Status Invalid(const std::string& what) { return absl::InvalidArgumentError(what); }

absl::Status CheckWorkdir(const std::string& workdir) {
  constexpr std::array<std::string_view, 9> kTaken{"/proc", "/sys", "/dev", "/run",   "/tmp",
                                                   "/etc",  "/usr", "/bin", "/.creel"};
  const bool plain = workdir.size() > 1 && workdir.front() == '/' &&
                     workdir.find_first_of(std::string_view(":,\0", 3)) == std::string::npos &&
                     std::filesystem::path(workdir).lexically_normal() == workdir &&
                     workdir.back() != '/';
  const bool taken = std::any_of(kTaken.begin(), kTaken.end(), [&](std::string_view folder) {
    return workdir == folder || workdir.rfind(fmt::format("{}/", folder), 0) == 0;
  });
  if (!plain || taken) {
    return Invalid(
        fmt::format("sandbox.workdir '{}' cannot be the tools' folder: name an absolute "
                    "path of its own, such as /workspace",
                    Printable(workdir, 256)));
  }
  return absl::OkStatus();
}

absl::Status CheckEnvironment(const std::map<std::string, std::string>& env) {
  for (const auto& [name, value] : env) {
    if (name.empty() || name.find_first_of(std::string_view("=\0", 2)) != std::string::npos ||
        value.find('\0') != std::string::npos) {
      return Invalid(
          fmt::format("environment variable '{}': a name is not empty and has no '=', "
                      "and neither name nor value holds NUL",
                      Printable(name, 128)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLimits(const LimitsConfig& limits) {
  const uint64_t memory_files = limits.tmp_bytes + limits.run_bytes + limits.shm_bytes;
  if (memory_files > limits.memory_bytes / 2) {
    return Invalid(
        fmt::format("/tmp, /run and /dev/shm are {} MiB together, more than half of the memory of "
                    "{} MiB: lower "
                    "them or raise sandbox.limits.memory_bytes",
                    memory_files >> 20, limits.memory_bytes >> 20));
  }
  if (limits.memory_bytes < (32u << 20) || limits.pids == 0 || limits.cpus <= 0 ||
      limits.tmp_bytes == 0 || limits.run_bytes == 0 || limits.shm_bytes == 0 ||
      limits.workspace_bytes == 0) {
    return Invalid(
        "sandbox.limits: memory of at least 32 MiB, and more than none of processes, CPU, "
        "/tmp, /run, /dev/shm and workspace");
  }
  return absl::OkStatus();
}

absl::Status CheckRuntime(const std::string& asked, const Config& config,
                          const HostAbilities& abilities) {
  const std::string runtime = asked.empty() ? abilities.default_runtime : asked;
  if (!asked.empty() && !abilities.runtimes.empty() &&
      std::find(abilities.runtimes.begin(), abilities.runtimes.end(), asked) ==
          abilities.runtimes.end()) {
    return absl::FailedPreconditionError(fmt::format(
        "the engine offers no runtime '{}', but {}: set sandbox.runtime, or register it "
        "with the engine",
        Printable(asked, 64), fmt::join(abilities.runtimes, ", ")));
  }
  if (KindOfRuntime(runtime) == RuntimeKind::kGvisor) {
    return RequireConcession(config, "no-seccomp",
                             fmt::format("runtime '{}' does not apply seccomp profiles", runtime));
  }
  return absl::OkStatus();
}

// One line for each thing that makes a container.
class Canonical {
 public:
  explicit Canonical(const std::string& id) : id_(id) {}

  void Add(const std::string& name, const std::string& value) {
    // Lengths, so that no value can pass for two.
    std::string plain = value;
    for (size_t at = plain.find(id_); !id_.empty() && at != std::string::npos;
         at = plain.find(id_, at)) {
      plain.replace(at, id_.size(), "ID");
    }
    text_ += fmt::format("{}={}:{}\n", name, plain.size(), plain);
  }
  template <typename Number>
  void AddNumber(const std::string& name, Number value) {
    Add(name, fmt::format("{}", value));
  }
  void AddList(const std::string& name, const std::vector<std::string>& list) {
    for (const std::string& each : list) {
      Add(name, each);
    }
  }

  [[nodiscard]] std::string Hash() const {
    Sha256 hash;
    hash.Update(text_);
    return Hex(hash.Finish());
  }

 private:
  const std::string id_;
  std::string text_;
};

// The shim listens for HTTP and SOCKS, and the tools are told where.
void AddEgress(const EgressConfig& egress, shim::v1::SandboxSetup& setup) {
  setup.mutable_egress()->add_ports(kEgressPort);
  setup.mutable_egress()->add_ports(kEgressSocksPort);
  setup.mutable_egress()->set_max_connections(egress.limits.connections + kEgressWaiting);
  const std::string proxy = fmt::format("http://127.0.0.1:{}", kEgressPort);
  auto& env = *setup.mutable_env();
  for (const char* name :
       {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}) {
    env[name] = proxy;
  }
  // What a tool starts in its own sandbox is reached as ever.
  env["NO_PROXY"] = env["no_proxy"] = "localhost,127.0.0.1,::1";
  // Node heeds the others only with this.
  env["NODE_USE_ENV_PROXY"] = "1";
}

}  // namespace

absl::Status CheckIdentity(const SandboxIdentity& identity, const Config& config,
                           const HostAbilities& abilities) {
  if (!IsSandboxId(identity.id)) {
    return Invalid(
        fmt::format("sandbox id '{}' is not 16 hexadecimal digits", Printable(identity.id, 64)));
  }
  if (identity.key.size() != 32) {
    return Invalid("the sandbox's key is not 32 bytes");
  }
  if (identity.image.empty()) {
    return Invalid("no image is named: set sandbox.image");
  }
  if (identity.tool_uid == 0 || identity.tool_gid == 0) {
    RETURN_IF_ERROR(
        RequireConcession(config, "tool-root", "tools of this sandbox would run as uid or gid 0"));
  }
  RETURN_IF_ERROR(CheckWorkdir(config.sandbox.workdir));
  RETURN_IF_ERROR(CheckEnvironment(identity.env));
  RETURN_IF_ERROR(CheckLimits(identity.limits));
  if ((abilities.userns_remap || abilities.rootless_engine) && identity.tool_uid > 65'000) {
    return absl::FailedPreconditionError(fmt::format(
        "the engine maps uids, and tool uid {} lies outside of the 65,536 that it maps: set "
        "sandbox.tool_uid_base: 20000 and sandbox.tool_uid_count: 40000",
        identity.tool_uid));
  }
  return CheckRuntime(identity.runtime, config, abilities);
}

ContainerConfig MakeContainerConfig(const Sandbox::Host& host, const SandboxIdentity& identity,
                                    const ImageInfo& image, const PreparedMounts& mounts) {
  const LimitsConfig& limits = identity.limits;
  ContainerConfig config;
  config.name = ContainerName(identity.id);
  config.image = image.id.empty() ? identity.image : image.id;
  config.runtime = identity.runtime;
  config.entrypoint = {"/.creel/creel-shim"};
  // PID 1 clears what it finds; nothing in here is anybody's.
  config.env = {{"PATH", kPath}, {"HOME", "/"}};
  config.image_env = image.env;
  config.image_volumes = image.volumes;
  config.add_capabilities = {"SETUID", "SETGID", "KILL"};
  config.seccomp_profile = SeccompProfile();
  if (host.abilities.apparmor_host && host.abilities.apparmor_engine) {
    config.apparmor_profile = "docker-default";
  }
  config.binds = mounts.binds;
  config.tmpfs = {
      {.target = "/tmp", .size_bytes = limits.tmp_bytes, .mode = 01777, .exec = true},
      {.target = "/run", .size_bytes = limits.run_bytes, .mode = 0755},
  };
  config.memory_bytes = static_cast<int64_t>(limits.memory_bytes);
  config.nano_cpus = static_cast<int64_t>(limits.cpus * 1e9);
  config.pids_limit = static_cast<int64_t>(limits.pids) + kShimProcesses;
  config.shm_bytes = limits.shm_bytes;
  config.nofile_soft = std::max(kShimOpenFiles, limits.open_files);
  config.nofile_hard = config.nofile_soft;
  config.blkio_weight = limits.blkio_weight;
  if (!host.abilities.state_device.empty()) {
    if (limits.read_bps > 0) {
      config.read_bps = {{host.abilities.state_device, limits.read_bps}};
    }
    if (limits.write_bps > 0) {
      config.write_bps = {{host.abilities.state_device, limits.write_bps}};
    }
  }
  // The engine of cgroup v1 looks for a file that kernels since 5.0 do not have; the weight is then
  // set in the container's group itself, or conceded.
  config.accepted_warnings.emplace_back("Block I/O weight");
  if (host.config.concessions.count("no-memory-limit") != 0) {
    config.accepted_warnings.insert(config.accepted_warnings.end(), {"memory limit", "swap limit"});
  }
  if (host.config.concessions.count("no-pids-limit") != 0) {
    config.accepted_warnings.emplace_back("PIDs");
    config.accepted_warnings.emplace_back("pids limit");
  }
  if (host.config.concessions.count("no-blkio") != 0) {
    config.accepted_warnings.emplace_back("Block I/O");
    config.accepted_warnings.emplace_back("BPS");
  }
  config.labels = {{kInstallLabel, host.install_id}, {kSandboxLabel, identity.id}};
  config.labels[kSpecLabel] = SpecHash(config, identity.id);
  return config;
}

std::string SpecHash(const ContainerConfig& config, const std::string& id) {
  Canonical text(id);
  text.Add("image", config.image);
  text.Add("runtime", config.runtime);
  text.AddList("entrypoint", config.entrypoint);
  text.AddList("command", config.command);
  text.Add("user", config.user);
  text.Add("working_dir", config.working_dir);
  text.Add("hostname", config.hostname);
  for (const auto& [name, value] : config.env) {
    text.Add("env", name + "=" + value);
  }
  text.AddList("image_env", config.image_env);
  text.AddList("capability", config.add_capabilities);
  text.Add("seccomp", config.seccomp_profile);
  text.Add("apparmor", config.apparmor_profile);
  text.Add("network", config.network_mode);
  text.Add("ipc", config.ipc_mode);
  text.Add("cgroupns", config.cgroupns_mode);
  for (const BindMount& bind : config.binds) {
    text.Add("bind", fmt::format("{}\n{}\n{}{}{}", bind.source, bind.target, bind.read_only,
                                 bind.slave, bind.recursive));
  }
  for (const TmpfsMount& tmpfs : config.tmpfs) {
    text.Add("tmpfs", fmt::format("{}\n{} {:o} {} {} {}", tmpfs.target, tmpfs.size_bytes,
                                  tmpfs.mode, tmpfs.uid, tmpfs.gid, tmpfs.exec));
  }
  text.AddList("volume", config.image_volumes);
  text.AddNumber("memory", config.memory_bytes);
  text.AddNumber("cpus", config.nano_cpus);
  text.AddNumber("pids", config.pids_limit);
  text.AddNumber("shm", config.shm_bytes);
  text.AddNumber("blkio", config.blkio_weight);
  for (const DeviceRate& rate : config.read_bps) {
    text.Add("read", fmt::format("{} {}", rate.path, rate.rate));
  }
  for (const DeviceRate& rate : config.write_bps) {
    text.Add("write", fmt::format("{} {}", rate.path, rate.rate));
  }
  text.Add("nofile", fmt::format("{} {}", config.nofile_soft, config.nofile_hard));
  text.AddNumber("oom", config.oom_score_adj);
  return text.Hash();
}

shim::v1::SandboxSetup MakeSetup(const SandboxIdentity& identity, const Config& config) {
  shim::v1::SandboxSetup setup;
  setup.set_sandbox_id(identity.id);
  setup.set_tool_uid(identity.tool_uid);
  setup.set_tool_gid(identity.tool_gid);
  setup.set_workspace(config.sandbox.workdir);
  setup.add_extra_roots("/tmp");
  auto& env = *setup.mutable_env();
  env["PATH"] = kPath;
  env["LANG"] = kLang;
  // A folder of somebody else's is not filled with the caches of tools.
  const bool own = identity.workspace.empty() || identity.access == WorkspaceAccess::kNone;
  env["HOME"] = own ? config.sandbox.workdir : "/tmp";
  if (config.egress.configured()) {
    AddEgress(config.egress, setup);
  }
  for (const auto& [name, value] : identity.env) {
    env[name] = value;
  }
  setup.mutable_limits()->set_open_files(identity.limits.open_files);
  return setup;
}

}  // namespace creel
