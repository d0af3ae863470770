#include "supervisor/engine/container_json.h"

#include <doctest/doctest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace creel {
namespace {

using nlohmann::json;

constexpr ApiVersion kOld{1, 41};
constexpr ApiVersion kNew{1, 52};

ContainerConfig Least() {
  ContainerConfig config;
  config.name = "c";
  config.image = "sha256:abc";
  config.entrypoint = {"/.creel/creel-shim"};
  config.seccomp_profile = R"({"defaultAction":"SCMP_ACT_ERRNO"})";
  return config;
}

json Made(const ContainerConfig& config, ApiVersion version = kOld) {
  const auto text = ToEngineJson(config, version);
  REQUIRE_MESSAGE(text.ok(), text.status().ToString());
  return json::parse(*text);
}

}  // namespace

TEST_SUITE("ToEngineJson") {
  TEST_CASE("the walls stand without being asked for") {
    const json body = Made(Least());
    const json& host = body["HostConfig"];
    CHECK(body["Image"] == "sha256:abc");
    CHECK(body["User"] == "0:0");
    CHECK(body["NetworkDisabled"] == true);
    CHECK(body["Healthcheck"] == json::parse(R"({"Test":["NONE"]})"));
    CHECK(body["StopSignal"] == "SIGKILL");
    CHECK(body["StopTimeout"] == 0);
    CHECK(body["Entrypoint"] == json::array({"/.creel/creel-shim"}));
    CHECK(body["Cmd"] == json::array());
    CHECK(body["Tty"] == false);
    CHECK(body["OpenStdin"] == false);
    CHECK(host["Privileged"] == false);
    CHECK(host["ReadonlyRootfs"] == true);
    CHECK(host["CapDrop"] == json::array({"ALL"}));
    CHECK(host["CapAdd"] == json::array());
    CHECK(host["SecurityOpt"] ==
          json::array({"no-new-privileges:true", R"(seccomp={"defaultAction":"SCMP_ACT_ERRNO"})"}));
    CHECK(host["NetworkMode"] == "none");
    CHECK(host["IpcMode"] == "private");
    CHECK(host["CgroupnsMode"] == "private");
    CHECK(host["LogConfig"] == json::parse(R"({"Type":"none","Config":{}})"));
    CHECK(host["RestartPolicy"] == json::parse(R"({"Name":"no"})"));
    CHECK(host["AutoRemove"] == false);
    CHECK(host["Init"] == false);
    CHECK(host["Ulimits"] == json::parse(R"([{"Name":"nofile","Soft":1024,"Hard":4096},)"
                                         R"({"Name":"core","Soft":0,"Hard":0}])"));
    CHECK(host["Mounts"] == json::array());
    CHECK_FALSE(host.contains("Runtime"));
    CHECK_FALSE(host.contains("Memory"));
    CHECK_FALSE(host.contains("BlkioWeight"));
    CHECK_FALSE(host.contains("PidMode"));
    CHECK_FALSE(host.contains("MaskedPaths"));
  }

  TEST_CASE("every limit arrives in the engine's words") {
    ContainerConfig config = Least();
    config.memory_bytes = 1 << 30;
    config.nano_cpus = 1'500'000'000;
    config.pids_limit = 256;
    config.shm_bytes = 64 << 20;
    config.blkio_weight = 100;
    config.read_bps = {{.path = "/dev/vda", .rate = 1000}};
    config.write_bps = {{.path = "/dev/vda", .rate = 2000}};
    config.oom_score_adj = 500;
    config.runtime = "runsc";
    config.apparmor_profile = "docker-default";
    config.add_capabilities = {"SETUID", "SETGID", "KILL"};
    config.tmpfs = {
        {.target = "/tmp", .size_bytes = 4096, .mode = 01777, .uid = 5, .gid = 6, .exec = true},
        {.target = "/run", .size_bytes = 8192, .mode = 0755}};
    const json host = Made(config)["HostConfig"];
    CHECK(host["Memory"] == 1 << 30);
    CHECK(host["MemorySwap"] == 1 << 30);
    CHECK(host["NanoCpus"] == 1'500'000'000);
    CHECK(host["PidsLimit"] == 256);
    CHECK(host["ShmSize"] == 64 << 20);
    CHECK(host["BlkioWeight"] == 100);
    CHECK(host["BlkioDeviceReadBps"] == json::parse(R"([{"Path":"/dev/vda","Rate":1000}])"));
    CHECK(host["BlkioDeviceWriteBps"] == json::parse(R"([{"Path":"/dev/vda","Rate":2000}])"));
    CHECK(host["OomScoreAdj"] == 500);
    CHECK(host["Runtime"] == "runsc");
    CHECK(host["SecurityOpt"][2] == "apparmor=docker-default");
    CHECK(host["CapAdd"] == json::array({"SETUID", "SETGID", "KILL"}));
    CHECK(host["Tmpfs"]["/tmp"] == "rw,nosuid,nodev,exec,size=4096,mode=1777,uid=5,gid=6");
    CHECK(host["Tmpfs"]["/run"] == "rw,nosuid,nodev,noexec,size=8192,mode=755,uid=0,gid=0");
  }

  TEST_CASE("a variable that only the image or the engine sets is taken out") {
    ContainerConfig config = Least();
    config.env = {{"PATH", "/bin"}, {"LANG", "C"}};
    config.image_env = {"LD_PRELOAD=/x=y", "LANG=de", "PATH=/evil", "BARE", ""};
    CHECK(Made(config)["Env"] ==
          json::array({"LANG=C", "PATH=/bin", "BARE", "HOSTNAME", "LD_PRELOAD"}));
  }

  TEST_CASE("a VOLUME of the image is covered, unless something of ours is there") {
    ContainerConfig config = Least();
    config.tmpfs = {{.target = "/tmp", .size_bytes = 4096}};
    config.binds = {{.source = "/srv/w", .target = "/workspace"}};
    config.image_volumes = {"/tmp", "/workspace/", "/data/", "var//lib", "/data"};
    const json mounts = Made(config)["HostConfig"]["Mounts"];
    REQUIRE(mounts.size() == 3);
    CHECK(mounts[0] == json::parse(R"({"Type":"tmpfs","Target":"/data","ReadOnly":true,
        "TmpfsOptions":{"SizeBytes":4096,"Mode":365}})"));
    CHECK(mounts[1]["Target"] == "/var/lib");
    CHECK(mounts[2]["Target"] == "/workspace");
    for (const char* bad : {"/", "", "/a:b", "/a,b"}) {
      CAPTURE(bad);
      config.image_volumes = {bad};
      CHECK(absl::IsFailedPrecondition(ToEngineJson(config, kOld).status()));
    }
  }

  TEST_CASE("a read-only bind has no part that can be written") {
    const auto options = [](const BindMount& bind, ApiVersion version) {
      ContainerConfig config = Least();
      config.binds = {bind};
      const json mount = Made(config, version)["HostConfig"]["Mounts"][0];
      CHECK(mount["Type"] == "bind");
      CHECK(mount["Source"] == "/srv/w");
      CHECK(mount["Target"] == "/w");
      CHECK(mount["ReadOnly"] == bind.read_only);
      return mount["BindOptions"];
    };
    for (const ApiVersion version : {kOld, kNew}) {
      CHECK(options({.source = "/srv/w", .target = "/w"}, version) ==
            json::parse(R"({"Propagation":"rprivate","NonRecursive":true})"));
      CHECK(options({.source = "/srv/w", .target = "/w", .read_only = false}, version) ==
            json::parse(R"({"Propagation":"rprivate","NonRecursive":true})"));
      CHECK(options({.source = "/srv/w", .target = "/w", .read_only = false, .recursive = true},
                    version) == json::parse(R"({"Propagation":"rprivate","NonRecursive":false})"));
      CHECK(options({.source = "/srv/w", .target = "/w", .read_only = false, .slave = true},
                    version) == json::parse(R"({"Propagation":"rslave","NonRecursive":false})"));
    }
    CHECK(options({.source = "/srv/w", .target = "/w", .slave = true}, kOld) ==
          json::parse(R"({"Propagation":"rslave","NonRecursive":false})"));
    CHECK(options({.source = "/srv/w", .target = "/w", .slave = true}, kNew) ==
          json::parse(R"({"Propagation":"rslave","NonRecursive":false,
                          "ReadOnlyNonRecursive":true})"));
    CHECK(options({.source = "/srv/w", .target = "/w", .recursive = true}, kNew) ==
          json::parse(R"({"Propagation":"rprivate","NonRecursive":false,
                          "ReadOnlyForceRecursive":true})"));
    ContainerConfig config = Least();
    config.binds = {{.source = "/a", .target = "/b", .recursive = true}};
    CHECK(absl::IsFailedPrecondition(ToEngineJson(config, kOld).status()));
  }

  TEST_CASE("what is incomplete or contradicts itself is refused") {
    const std::function<void(ContainerConfig&)> spoilers[] = {
        [](ContainerConfig& c) { c.image.clear(); },
        [](ContainerConfig& c) { c.entrypoint.clear(); },
        [](ContainerConfig& c) { c.entrypoint = {""}; },
        [](ContainerConfig& c) { c.seccomp_profile.clear(); },
        [](ContainerConfig& c) { c.seccomp_profile = "unconfined"; },
        [](ContainerConfig& c) { c.seccomp_profile = "\"unconfined\""; },
        [](ContainerConfig& c) {
          c.env = {{"A=B", "x"}};
        },
        [](ContainerConfig& c) {
          c.env = {{"", "x"}};
        },
        [](ContainerConfig& c) {
          c.env = {{"A", std::string("x\0y", 3)}};
        },
        [](ContainerConfig& c) {
          c.env = {{"A", "\xff"}};
        },
        [](ContainerConfig& c) { c.binds = {{.source = "relative", .target = "/w"}}; },
        [](ContainerConfig& c) { c.binds = {{.source = "/a/../b", .target = "/w"}}; },
        [](ContainerConfig& c) { c.binds = {{.source = "/a", .target = "/"}}; },
        [](ContainerConfig& c) { c.binds = {{.source = "/a", .target = "/w/./x"}}; },
        [](ContainerConfig& c) {
          c.binds = {{.source = "/a", .target = "/w"}, {.source = "/b", .target = "/w"}};
        },
        [](ContainerConfig& c) { c.tmpfs = {{.target = "/tmp", .size_bytes = 0}}; },
        [](ContainerConfig& c) { c.tmpfs = {{.target = "/t,exec", .size_bytes = 1}}; },
        [](ContainerConfig& c) {
          c.binds = {{.source = "/a", .target = "/w"}};
          c.tmpfs = {{.target = "/w", .size_bytes = 1}};
        },
    };
    int row = 0;
    for (const auto& spoil : spoilers) {
      CAPTURE(row++);
      ContainerConfig config = Least();
      spoil(config);
      CHECK(absl::IsInvalidArgument(ToEngineJson(config, kOld).status()));
    }
  }
}

}  // namespace creel
