#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "supervisor/sandbox/freezer.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/sandbox_paths.h"
#include "supervisor/sandbox/shim_store.h"
#include "supervisor/sandbox/tool_uids.h"
#include "tests/fakes/fake_engine.h"

namespace creel {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/creel-parts-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  std::string path;
};

HostAbilities GoodHost() {
  HostAbilities abilities;
  abilities.root = true;
  abilities.loop_mounts = true;
  abilities.idmap = true;
  abilities.cgroup_freezer = true;
  abilities.seccomp_engine = true;
  abilities.blkio_weight = true;
  abilities.blkio_weight_heeded = true;
  abilities.default_runtime = "runc";
  abilities.state_device = "/dev/vda";
  return abilities;
}

TEST_SUITE("ToolUids") {
  TEST_CASE("no uid is given twice, and one that was given back comes last") {
    ToolUids uids(100, 3);
    CHECK(*uids.Take() == 100);
    uids.Release(100);
    CHECK(*uids.Take() == 101);
    CHECK(*uids.Take() == 102);
    CHECK(*uids.Take() == 100);
    CHECK(uids.Take().status().code() == absl::StatusCode::kResourceExhausted);
    uids.Release(101);
    CHECK(*uids.Take() == 101);
  }

  TEST_CASE("uids of sandboxes that live are passed over") {
    ToolUids uids(100, 4);
    CHECK(uids.Reserve(101));
    CHECK_FALSE(uids.Reserve(101));
    CHECK(uids.Reserve(5));
    CHECK(*uids.Take() == 102);
    CHECK(*uids.Take() == 103);
    CHECK(*uids.Take() == 100);
    CHECK_FALSE(uids.Take().ok());
  }
}

TEST_SUITE("ShimStore") {
  TEST_CASE("a binary is copied once by its content, and a damaged copy is made anew") {
    const Folder folder;
    const std::string binary = folder.path + "/shim";
    std::ofstream(binary) << "one";
    auto first = StoreShim(binary, folder.path + "/state");
    REQUIRE(first.ok());
    CHECK(first->sha256.size() == 64);
    CHECK(first->path == folder.path + "/state/shim/" + first->sha256 + "/creel-shim");
    struct stat about {};
    REQUIRE(::stat(first->path.c_str(), &about) == 0);
    CHECK((about.st_mode & 07777) == 0755);
    const auto inode = about.st_ino;
    CHECK(StoreShim(binary, folder.path + "/state")->path == first->path);
    REQUIRE(::stat(first->path.c_str(), &about) == 0);
    CHECK(about.st_ino == inode);

    std::ofstream(first->path) << "damaged";
    CHECK(StoreShim(binary, folder.path + "/state").ok());
    std::ifstream again(first->path);
    std::string text;
    again >> text;
    CHECK(text == "one");

    std::ofstream(binary) << "two";
    auto second = StoreShim(binary, folder.path + "/state");
    REQUIRE(second.ok());
    CHECK(second->path != first->path);
    CHECK(fs::exists(first->path));
    CHECK(StoreShim(folder.path + "/none", folder.path + "/state").status().code() ==
          absl::StatusCode::kNotFound);
  }
}

TEST_SUITE("HostAbilities") {
  TEST_CASE("a good host needs no concession") {
    const Config config;
    CHECK(CheckConcessions(GoodHost(), config).ok());
    for (const Finding& finding : FindingsOf(GoodHost(), config)) {
      CAPTURE(finding.id);
      CHECK(finding.severity == Severity::kOk);
    }
  }

  TEST_CASE("each lack is named with the YAML that accepts it, and accepted it is a warning") {
    struct {
      const char* concession;
      void (*change)(HostAbilities&, Config&);
    } const rows[] = {
        {"no-sized-workspace",
         [](HostAbilities& a, Config&) {
           a.loop_mounts = false;
           a.loop_mounts_why = "no loop devices";
         }},
        {"no-seccomp", [](HostAbilities& a, Config&) { a.seccomp_engine = false; }},
        {"no-seccomp", [](HostAbilities&, Config& c) { c.sandbox.runtime = "runsc"; }},
        {"no-apparmor", [](HostAbilities& a, Config&) { a.apparmor_host = true; }},
        {"rootless-engine", [](HostAbilities& a, Config&) { a.rootless_engine = true; }},
        {"userns-remap", [](HostAbilities& a, Config&) { a.userns_remap = true; }},
        {"no-memory-limit", [](HostAbilities& a, Config&) { a.memory_limit = false; }},
        {"no-pids-limit", [](HostAbilities& a, Config&) { a.pids_limit = false; }},
        {"no-blkio", [](HostAbilities& a, Config&) { a.blkio_weight = false; }},
        {"mode-off", [](HostAbilities&, Config& c) { c.sandbox.mode = SandboxMode::kOff; }},
    };
    for (const auto& row : rows) {
      CAPTURE(row.concession);
      CHECK(std::find(kConcessions.begin(), kConcessions.end(), row.concession) !=
            kConcessions.end());
      HostAbilities abilities = GoodHost();
      Config config;
      row.change(abilities, config);
      const absl::Status status = CheckConcessions(abilities, config);
      CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
      const std::string message(status.message());
      CHECK(message.find(std::string("concessions:\n  - ") + row.concession) != std::string::npos);
      config.concessions = {row.concession};
      CHECK(CheckConcessions(abilities, config).ok());
      const auto findings = FindingsOf(abilities, config);
      CHECK(std::any_of(findings.begin(), findings.end(), [&](const Finding& finding) {
        return finding.id == row.concession && finding.severity == Severity::kWarning &&
               !finding.why.empty() && !finding.fix.empty();
      }));
    }
  }

  TEST_CASE("what the engine says is understood") {
    const Folder folder;
    FakeEngine engine;
    EngineInfo info;
    info.default_runtime = "runc";
    info.security_options = {"name=seccomp,profile=default", "name=rootless"};
    info.warnings = {"WARNING: No swap limit support", "WARNING: No pids limit support"};
    info.operating_system = "Docker Desktop";
    engine.SetInfo(info);
    Config config;
    config.paths.run_dir = folder.path + "/run";
    config.paths.state_dir = folder.path + "/state";
    auto probed = ProbeHost(engine, config, After(seconds(10)));
    REQUIRE(probed.ok());
    CHECK(probed->seccomp_engine);
    CHECK_FALSE(probed->apparmor_engine);
    CHECK(probed->rootless_engine);
    CHECK_FALSE(probed->userns_remap);
    CHECK_FALSE(probed->memory_limit);
    CHECK_FALSE(probed->pids_limit);
    CHECK(probed->engine_elsewhere);
    CHECK_FALSE(probed->loop_mounts);
    CHECK_FALSE(probed->loop_mounts_why.empty());
    engine.SetAway(true);
    CHECK(ProbeHost(engine, config, After(seconds(10))).status().code() ==
          absl::StatusCode::kUnavailable);
  }
}

TEST_SUITE("Freezer") {
  std::string Running(FakeEngine & engine) {
    ContainerConfig config;
    config.name = "creel-0123456789abcdef";
    config.image = "some:image";
    engine.AddImage("some:image", {});
    auto id = engine.CreateContainer(config, After(seconds(1)));
    REQUIRE(id.ok());
    REQUIRE(engine.StartContainer(*id, After(seconds(1))).ok());
    return *id;
  }

  TEST_CASE("a pause that fails is tried again") {
    FakeEngine engine;
    const std::string id = Running(engine);
    for (int i = 0; i < 3; ++i) {
      engine.FailNext("PauseContainer", absl::InternalError("unable to freeze"));
    }
    auto method = FreezeContainer(engine, HostAbilities(), id, After(seconds(5)));
    REQUIRE(method.ok());
    CHECK(*method == kFrozenByEngine);
    CHECK(ThawContainer(engine, HostAbilities(), id, *method, After(seconds(1))).ok());
    CHECK(engine.InspectContainer(id, After(seconds(1)))->state == ContainerState::kRunning);
  }

  TEST_CASE("what cannot be paused in any way is killed within two seconds") {
    FakeEngine engine;
    const std::string id = Running(engine);
    for (int i = 0; i < 1000; ++i) {
      engine.FailNext("PauseContainer", absl::InternalError("unable to freeze"));
    }
    const auto start = std::chrono::steady_clock::now();
    auto method = FreezeContainer(engine, HostAbilities(), id, After(seconds(5)));
    REQUIRE(method.ok());
    CHECK(*method == kKilled);
    CHECK(std::chrono::steady_clock::now() - start < seconds(2));
    CHECK(engine.InspectContainer(id, After(seconds(1)))->state == ContainerState::kExited);
  }

  TEST_CASE("a container that is gone cannot be frozen") {
    FakeEngine engine;
    CHECK(FreezeContainer(engine, HostAbilities(), "none", After(seconds(1))).status().code() ==
          absl::StatusCode::kNotFound);
  }

  TEST_CASE("the mark of a frozen sandbox comes back, and a damaged one still holds") {
    const Folder folder;
    const std::string path = folder.path + "/hold";
    CHECK(ReadHold(path).status().code() == absl::StatusCode::kNotFound);
    CHECK(WriteHold(path, {.method = kFrozenByCgroup, .reason = "two\nlines"}).ok());
    CHECK(ReadHold(path)->method == kFrozenByCgroup);
    CHECK(ReadHold(path)->reason == "two\nlines");
    std::ofstream(path, std::ios::trunc) << "";
    CHECK(ReadHold(path)->method == kFrozenByEngine);
    CHECK(RemoveHold(path).ok());
    CHECK(RemoveHold(path).ok());
    CHECK_FALSE(ReadHold(path).ok());
  }
}

TEST_SUITE("SandboxPaths") {
  TEST_CASE("only an id of ours becomes a path") {
    CHECK(IsSandboxId("0123456789abcdef"));
    for (const char* id :
         {"", "0123456789abcde", "0123456789abcdeF", "../3456789abcdef", "0123456789abcdef0"}) {
      CAPTURE(id);
      CHECK_FALSE(IsSandboxId(id));
    }
    const SandboxPaths paths = SandboxPaths::For({}, "0123456789abcdef");
    CHECK(paths.link_dir == "/run/creel/sandboxes/0123456789abcdef");
    CHECK(paths.image == "/var/lib/creel/sandboxes/0123456789abcdef/workspace.img");
  }
}

}  // namespace
}  // namespace creel
