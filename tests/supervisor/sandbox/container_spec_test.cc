#include "supervisor/sandbox/container_spec.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>

#include "supervisor/sandbox/host_abilities.h"
#include "tests/fakes/fake_engine.h"

namespace creel {
namespace {

class World {
 public:
  World() {
    auto pool = LinkPool::Start();
    REQUIRE(pool.ok());
    links = *std::move(pool);
    abilities.root = true;
    abilities.loop_mounts = true;
    abilities.seccomp_engine = true;
    abilities.blkio_weight = true;
    abilities.default_runtime = "runc";
    abilities.runtimes = {"runc", "runsc"};
    identity.id = "0123456789abcdef";
    identity.key = std::string(32, 'k');
    identity.tool_uid = 2'000'001;
    identity.tool_gid = 2'000'001;
    identity.image = "some:image";
    mounts.binds = {{.source = "/run/creel/mounts/0123456789abcdef/link",
                     .target = "/run/creel",
                     .read_only = false}};
    image.id = "sha256:1";
    image.env = {"LD_PRELOAD=/evil.so", "PATH=/nowhere"};
    image.volumes = {"/data"};
  }
  ContainerConfig Spec() const {
    const Sandbox::Host host{.engine = engine,
                             .links = *links,
                             .config = config,
                             .abilities = abilities,
                             .install_id = "me",
                             .shim_path = "/s/creel-shim",
                             .shim_sha256 = "00"};
    return MakeContainerConfig(host, identity, image, mounts);
  }
  absl::Status Check() const { return CheckIdentity(identity, config, abilities); }

  mutable FakeEngine engine;
  std::unique_ptr<LinkPool> links;
  Config config;
  HostAbilities abilities;
  SandboxIdentity identity;
  ImageInfo image;
  PreparedMounts mounts;
};

TEST_SUITE("ContainerSpec") {
  TEST_CASE("a container has what a sandbox is made of, and nothing else") {
    const World world;
    const ContainerConfig spec = world.Spec();
    CHECK(spec.name == "creel-0123456789abcdef");
    CHECK(spec.image == "sha256:1");
    CHECK(spec.entrypoint == std::vector<std::string>{"/.creel/creel-shim"});
    CHECK(spec.command.empty());
    CHECK(spec.user == "0:0");
    CHECK(spec.env.count("LD_PRELOAD") == 0);
    CHECK(spec.image_env == world.image.env);
    CHECK(spec.image_volumes == world.image.volumes);
    CHECK(spec.add_capabilities == std::vector<std::string>{"SETUID", "SETGID", "KILL"});
    CHECK(spec.network_mode == "none");
    CHECK(spec.ipc_mode == "private");
    CHECK(spec.cgroupns_mode == "private");
    CHECK(spec.memory_bytes == 1 << 30);
    CHECK(spec.nano_cpus == 1'000'000'000);
    CHECK(spec.pids_limit == 256 + kShimProcesses);
    CHECK(spec.shm_bytes == 64u << 20);
    CHECK(spec.blkio_weight == 100);
    REQUIRE(spec.tmpfs.size() == 2);
    CHECK(spec.tmpfs[0].target == "/tmp");
    CHECK(spec.tmpfs[0].size_bytes == 256u << 20);
    CHECK(spec.tmpfs[1].target == "/run");
    CHECK_FALSE(spec.tmpfs[1].exec);
    CHECK(spec.labels.size() == 3);
    CHECK(spec.labels.at(kInstallLabel) == "me");
    CHECK(spec.labels.at(kSpecLabel).size() == 64);
    CHECK(spec.apparmor_profile.empty());
  }

  TEST_CASE("AppArmor is asked for where host and engine have it") {
    World world;
    world.abilities.apparmor_host = true;
    CHECK(world.Spec().apparmor_profile.empty());
    world.abilities.apparmor_engine = true;
    CHECK(world.Spec().apparmor_profile == "docker-default");
  }

  TEST_CASE("the hash is the same for what is the same, and differs for anything else") {
    const World world;
    const std::string hash = world.Spec().labels.at(kSpecLabel);
    World other;
    other.identity.id = "fedcba9876543210";
    other.mounts.binds[0].source = "/run/creel/mounts/fedcba9876543210/link";
    CHECK(other.Spec().labels.at(kSpecLabel) == hash);
    const std::function<void(World&)> changes[] = {
        [](World& w) { w.image.id = "sha256:2"; },
        [](World& w) { w.identity.runtime = "runsc"; },
        [](World& w) { w.identity.limits.memory_bytes += 1; },
        [](World& w) { w.identity.limits.cpus = 2; },
        [](World& w) { w.identity.limits.pids = 1; },
        [](World& w) { w.identity.limits.tmp_bytes += 1; },
        [](World& w) { w.identity.limits.shm_bytes += 1; },
        [](World& w) { w.identity.limits.blkio_weight = 10; },
        [](World& w) { w.mounts.binds[0].target = "/run/other"; },
        [](World& w) { w.mounts.binds[0].read_only = true; },
        [](World& w) { w.mounts.binds.push_back({.source = "/a", .target = "/b"}); },
        [](World& w) { w.image.volumes.clear(); },
        [](World& w) {
          w.abilities.apparmor_host = true;
          w.abilities.apparmor_engine = true;
        },
    };
    for (const auto& change : changes) {
      World changed;
      change(changed);
      CHECK(changed.Spec().labels.at(kSpecLabel) != hash);
    }
  }

  TEST_CASE("rates are set on the disk that holds the state") {
    World world;
    world.identity.limits.write_bps = 1000;
    CHECK(world.Spec().write_bps.empty());
    world.abilities.state_device = "/dev/vda";
    REQUIRE(world.Spec().write_bps.size() == 1);
    CHECK(world.Spec().write_bps[0].path == "/dev/vda");
    CHECK(world.Spec().write_bps[0].rate == 1000);
  }

  TEST_CASE("what cannot be a sandbox is refused") {
    struct {
      const char* what;
      std::function<void(World&)> change;
      const char* message;
    } const rows[] = {
        {"id", [](World& w) { w.identity.id = "../../../../etc"; }, "hexadecimal"},
        {"short id", [](World& w) { w.identity.id = "0123"; }, "hexadecimal"},
        {"key", [](World& w) { w.identity.key = "short"; }, "32 bytes"},
        {"image", [](World& w) { w.identity.image.clear(); }, "sandbox.image"},
        {"uid 0", [](World& w) { w.identity.tool_uid = 0; }, "tool-root"},
        {"gid 0", [](World& w) { w.identity.tool_gid = 0; }, "tool-root"},
        {"relative workdir", [](World& w) { w.config.sandbox.workdir = "work"; }, "workdir"},
        {"workdir in /proc", [](World& w) { w.config.sandbox.workdir = "/proc/x"; }, "workdir"},
        {"workdir over the link", [](World& w) { w.config.sandbox.workdir = "/run/creel"; },
         "workdir"},
        {"workdir with ..", [](World& w) { w.config.sandbox.workdir = "/a/../etc"; }, "workdir"},
        {"workdir with colon", [](World& w) { w.config.sandbox.workdir = "/a:b"; }, "workdir"},
        {"variable", [](World& w) { w.identity.env["A=B"] = "x"; }, "environment"},
        {"NUL", [](World& w) { w.identity.env["A"] = std::string("x\0y", 3); }, "environment"},
        {"tmpfs", [](World& w) { w.identity.limits.tmp_bytes = 1ull << 30; }, "half"},
        {"memory", [](World& w) { w.identity.limits.memory_bytes = 0; }, "half"},
        {"pids", [](World& w) { w.identity.limits.pids = 0; }, "processes"},
        {"runtime", [](World& w) { w.identity.runtime = "crun"; }, "offers no runtime"},
        {"gVisor", [](World& w) { w.identity.runtime = "runsc"; }, "no-seccomp"},
        {"mapped uids", [](World& w) { w.abilities.userns_remap = true; }, "tool_uid_base"},
    };
    for (const auto& row : rows) {
      CAPTURE(row.what);
      World world;
      row.change(world);
      const absl::Status status = world.Check();
      CHECK_FALSE(status.ok());
      const std::string message(status.message());
      CAPTURE(message);
      CHECK(message.find(row.message) != std::string::npos);
    }
    World world;
    CHECK(world.Check().ok());
    world.identity.runtime = "runsc";
    world.config.concessions = {"no-seccomp"};
    CHECK(world.Check().ok());
  }

  TEST_CASE("the shim is told who the tools are and where they work") {
    World world;
    world.identity.env["TOKEN"] = "value";
    world.identity.limits.open_files = 77;
    const shim::v1::SandboxSetup setup = MakeSetup(world.identity, world.config);
    CHECK(setup.tool_uid() == 2'000'001);
    CHECK(setup.workspace() == "/workspace");
    CHECK(setup.env().at("HOME") == "/workspace");
    CHECK(setup.env().at("LANG") == "C.UTF-8");
    CHECK(setup.env().at("TOKEN") == "value");
    CHECK(setup.limits().open_files() == 77);
    world.identity.workspace = "/srv/project";
    world.identity.access = WorkspaceAccess::kReadWrite;
    CHECK(MakeSetup(world.identity, world.config).env().at("HOME") == "/tmp");
  }

  TEST_CASE("the profile denies by default and is not empty") {
    const std::string& profile = SeccompProfile();
    CHECK(profile.find("\"defaultAction\": \"SCMP_ACT_ERRNO\"") != std::string::npos);
    for (const char* call : {"\"ptrace\"", "\"mount\"", "\"unshare\"", "\"bpf\"", "\"keyctl\"",
                             "\"io_uring_setup\"", "\"userfaultfd\"", "\"setns\""}) {
      CAPTURE(call);
      CHECK(profile.find(call) == std::string::npos);
    }
  }
}

}  // namespace
}  // namespace creel
