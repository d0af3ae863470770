#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/crypto.h"
#include "supervisor/engine/docker_engine.h"
#include "supervisor/sandbox/container_spec.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/opening.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/sandbox/sandbox_paths.h"
#include "supervisor/sandbox/shim_store.h"
#include "supervisor/sandbox/workspace.h"

namespace creel {
namespace {

using std::chrono::seconds;

std::string Slurp(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> MountsWith(const std::string& part) {
  std::vector<std::string> found;
  std::istringstream lines(Slurp("/proc/self/mountinfo"));
  for (std::string line; std::getline(lines, line);) {
    if (line.find(part) != std::string::npos) {
      found.push_back(line);
    }
  }
  return found;
}

std::vector<std::string> LoopImages() {
  std::vector<std::string> images;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/block")) {
    if (entry.path().filename().string().rfind("loop", 0) == 0) {
      if (const std::string image = Slurp(entry.path() / "loop/backing_file"); !image.empty()) {
        images.push_back(image);
      }
    }
  }
  return images;
}

struct Ran {
  int code = -1;
  std::string out;
  std::string failure;
};

// A supervisor's worth of shared things, in folders of their own.
class House {
 public:
  explicit House(const std::function<void(Config&)>& change = {}) {
    char folder[] = "/var/tmp/creel-sandbox-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    dir = folder;
    config.paths.run_dir = dir + "/run";
    config.paths.state_dir = dir + "/state";
    config.sandbox.image = "debian:bookworm-slim";
    config.sandbox.limits.workspace_bytes = 64u << 20;
    config.sandbox.workspace_roots = {dir + "/given"};
    std::filesystem::create_directories(dir + "/given");
    std::filesystem::create_directories(config.paths.state_dir);
    if (change) {
      change(config);
    }
    auto connected = DockerEngine::Connect({}, After(seconds(10)));
    REQUIRE_MESSAGE(connected.ok(), connected.status().ToString());
    engine = *std::move(connected);
    auto pool = LinkPool::Start();
    REQUIRE(pool.ok());
    links = *std::move(pool);
    auto probed = ProbeHost(*engine, config, After(seconds(30)));
    REQUIRE_MESSAGE(probed.ok(), probed.status().ToString());
    abilities = *std::move(probed);
    auto shim = StoreShim(CREEL_TEST_SHIM, config.paths.state_dir);
    REQUIRE_MESSAGE(shim.ok(), shim.status().ToString());
    host = std::make_unique<Sandbox::Host>(Sandbox::Host{.engine = *engine,
                                                         .links = *links,
                                                         .config = config,
                                                         .abilities = abilities,
                                                         .install_id = install,
                                                         .shim_path = shim->path,
                                                         .shim_sha256 = shim->sha256});
  }
  ~House() {
    for (const SandboxIdentity& each : made) {
      CHECK(Sandbox::Remove(*host, each, After(seconds(30))).ok());
    }
    CHECK(MountsWith(dir).empty());
    for (const std::string& image : LoopImages()) {
      CHECK(image.find(dir) == std::string::npos);
    }
    auto left =
        engine->ListContainers(fmt::format("{}={}", kInstallLabel, install), After(seconds(10)));
    CHECK((left.ok() && left->empty()));
    std::filesystem::remove_all(dir);
  }

  SandboxIdentity NewIdentity() {
    SandboxIdentity identity;
    identity.id = Hex(RandomBytes(8));
    identity.key = RandomBytes(32);
    identity.tool_uid = next_uid;
    identity.tool_gid = next_uid++;
    identity.image = config.sandbox.image;
    identity.limits = config.sandbox.limits;
    return identity;
  }

  absl::StatusOr<std::shared_ptr<Sandbox>> Make(SandboxIdentity& identity) {
    auto sandbox = Sandbox::Create(*host, identity, After(seconds(60)));
    made.push_back(identity);
    return sandbox;
  }
  std::shared_ptr<Sandbox> Open(SandboxIdentity identity) {
    auto sandbox = Make(identity);
    REQUIRE_MESSAGE(sandbox.ok(), sandbox.status().ToString());
    return *std::move(sandbox);
  }
  std::shared_ptr<Sandbox> Open() { return Open(NewIdentity()); }

  static Ran Run(Sandbox& sandbox, const std::string& line) {
    Ran ran;
    auto shim = sandbox.shim();
    if (!shim.ok()) {
      ran.failure = std::string(shim.status().message());
      return ran;
    }
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(60));
    auto stream = (*shim)->Run(&context);
    shim::v1::RunRequest request;
    request.mutable_start()->set_process_id(Hex(RandomBytes(8)));
    request.mutable_start()->mutable_spec()->set_shell(line);
    stream->Write(request);
    shim::v1::RunResponse response;
    while (stream->Read(&response)) {
      if (response.event().has_output()) {
        ran.out += response.event().output().data();
      } else if (response.event().has_exit()) {
        const shim::v1::Exit& exit = response.event().exit();
        ran.code = exit.how_case() == shim::v1::Exit::kCode ? exit.code() : -1;
        if (exit.has_start_failure()) {
          ran.failure = exit.start_failure().message();
        }
      }
    }
    stream->WritesDone();
    if (const grpc::Status status = stream->Finish(); !status.ok() && ran.code < 0) {
      ran.failure = status.error_message();
    }
    return ran;
  }

  std::string dir;
  Config config;
  std::unique_ptr<DockerEngine> engine;
  std::unique_ptr<LinkPool> links;
  HostAbilities abilities;
  std::unique_ptr<Sandbox::Host> host;
  std::vector<SandboxIdentity> made;
  const std::string install = "test-" + Hex(RandomBytes(6));
  uint32_t next_uid = 2'000'100;
};

TEST_SUITE("Sandbox") {
  TEST_CASE("a command runs, and everything about the container is as it was asked") {
    House house;
    auto sandbox = house.Open();
    const Ran ran = House::Run(*sandbox, "echo $((6*7))");
    CHECK(ran.failure == "");
    CHECK(ran.code == 0);
    CHECK(ran.out == "42\n");
    const SandboxIdentity& identity = sandbox->identity();
    CHECK(identity.workspace_bound == "sized");
    CHECK(identity.spec_hash.size() == 64);

    auto info = house.engine->InspectContainer(identity.container_id, After(seconds(10)));
    REQUIRE(info.ok());
    CHECK(info->name == "creel-" + identity.id);
    CHECK(info->labels.at(kInstallLabel) == house.install);
    CHECK(info->labels.at(kSandboxLabel) == identity.id);
    CHECK(info->labels.at(kSpecLabel) == identity.spec_hash);
    for (const char* part :
         {R"("ReadonlyRootfs":true)", R"("CapDrop":["ALL"])", R"("NetworkMode":"none")",
          R"("IpcMode":"private")", R"("CgroupnsMode":"private")", R"("Memory":1073741824)",
          R"("MemorySwap":1073741824)", R"("PidsLimit":320)", R"("NanoCpus":1000000000)",
          R"("ShmSize":67108864)", R"("Privileged":false)", R"("no-new-privileges)",
          R"("Type":"none")", R"("User":"0:0")", R"("Hostname":"sandbox")"}) {
      CAPTURE(part);
      CHECK(info->json.find(part) != std::string::npos);
    }

    struct {
      const char* line;
      const char* expected;
    } const rows[] = {
        {"id -u; id -g", "2000100\n2000100\n"},
        {"id -G", "2000100\n"},
        {"grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'",
         "CapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000\n"
         "CapAmb:0000000000000000\nNoNewPrivs:1\nSeccomp:2\n"},
        {"pwd", "/workspace\n"},
        {"stat -c '%u:%g %a' /workspace", "2000100:2000100 755\n"},
        {"env | grep -vE '^(PWD|OLDPWD|SHLVL|_)=' | sort",
         "HOME=/workspace\nLANG=C.UTF-8\n"
         "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"},
        {"hostname", "sandbox\n"},
        {"ls /sys/class/net", "lo\n"},
        {"touch /x 2>/dev/null || echo ro", "ro\n"},
        {"touch /run/creel/x 2>/dev/null || echo ro", "ro\n"},
        {"touch /.creel/x 2>/dev/null || echo ro", "ro\n"},
        {"touch /tmp/x && rm /tmp/x && echo rw", "rw\n"},
        {"touch /workspace/x && rm /workspace/x && echo rw", "rw\n"},
        {"ulimit -c", "0\n"},
        {"ulimit -n", "1024\n"},
        {"nice", "10\n"},
        {"cat /proc/self/oom_score_adj", "500\n"},
        {"grep -c localhost /etc/hosts", "2\n"},
        {"awk '$5 ~ /^\\/(tmp|run|workspace|dev\\/shm|run\\/creel|.creel|etc\\/hosts)$/ && "
         "($6 !~ /nosuid/ || $6 !~ /nodev/) {print $5, $6}' /proc/self/mountinfo 2>/dev/null",
         ""},
        {"df -k --output=size /tmp /run /dev/shm | tail -n3 | tr -d ' '", "262144\n16384\n65536\n"},
        {"test $(df -k --output=size /workspace | tail -n1) -le 65536 && echo sized", "sized\n"},
    };
    for (const auto& row : rows) {
      CAPTURE(row.line);
      const Ran each = House::Run(*sandbox, row.line);
      CHECK(each.failure == "");
      CHECK(each.out == row.expected);
    }
    CHECK(sandbox->WorkspaceUsed() > 0);
    // Nothing of it is mounted on the host any more.
    CHECK(MountsWith(house.dir).empty());
    CHECK(sandbox->Close(After(seconds(30))).ok());
    CHECK(sandbox->state() == SandboxState::kClosed);
    CHECK_FALSE(
        std::filesystem::exists(house.config.paths.state_dir + "/sandboxes/" + identity.id));
    CHECK_FALSE(std::filesystem::exists(house.config.paths.run_dir + "/sandboxes/" + identity.id));
  }

  TEST_CASE("the filter refuses what it must and lets ordinary tools work") {
    House house;
    const std::string folder = house.dir + "/given/tools";
    std::filesystem::create_directories(folder);
    REQUIRE(::chown(folder.c_str(), 1234, 1234) == 0);
    std::filesystem::copy_file(CREEL_TEST_FILTERED_CALLS, folder + "/filtered_calls");
    REQUIRE(::chmod((folder + "/filtered_calls").c_str(), 0755) == 0);
    SandboxIdentity identity = house.NewIdentity();
    identity.workspace = folder;
    identity.access = WorkspaceAccess::kReadWrite;
    auto sandbox = house.Open(identity);
    const Ran calls = House::Run(*sandbox, "./filtered_calls");
    CHECK(calls.failure == "");
    CHECK(calls.out == "");
    CHECK(calls.code == 0);
    for (const char* line :
         {"seq 1000 | sort -rn | head -1 | grep -qx 1000",
          "mkdir -p a/b && cp -a /etc/passwd a/b/ ",
          "tar cf - /etc/debian_version 2>/dev/null | tar tf - | grep -q debian",
          "find /usr/bin -maxdepth 1 -type f | xargs ls -l >/dev/null", "mktemp >/dev/null",
          "perl -e 'print 1+1' | grep -qx 2", "(sleep 0.1 & wait) && echo | cat >/dev/null",
          "dd if=/dev/zero of=a/zero bs=1M count=4 2>/dev/null && sync a/zero",
          "touch a/t && chmod 640 a/t && ln -s t a/l && mv a/t a/u && rm -r a"}) {
      CAPTURE(line);
      const Ran each = House::Run(*sandbox, line);
      CHECK(each.out == "");
      CHECK(each.code == 0);
    }
  }

  TEST_CASE("files in a given folder belong on both sides to whom they should") {
    House house;
    const std::string folder = house.dir + "/given/project";
    std::filesystem::create_directories(folder + "/.git/hooks");
    std::ofstream(folder + "/theirs") << "before\n";
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      REQUIRE(::chown(entry.path().c_str(), 4321, 4322) == 0);
    }
    REQUIRE(::chown(folder.c_str(), 4321, 4322) == 0);
    SandboxIdentity identity = house.NewIdentity();
    identity.workspace = folder;
    identity.access = WorkspaceAccess::kReadWrite;
    {
      auto sandbox = house.Open(identity);
      CHECK(sandbox->identity().workspace_bound == "watched");
      CHECK(House::Run(*sandbox, "stat -c %u theirs; echo after >> theirs; echo new > mine").out ==
            fmt::format("{}\n", identity.tool_uid));
      CHECK(Slurp(folder + "/theirs") == "before\nafter\n");
      struct stat about {};
      REQUIRE(::stat((folder + "/mine").c_str(), &about) == 0);
      CHECK(about.st_uid == 4321);
      CHECK(about.st_gid == 4322);
      // What the host runs later stays as it is, under its own name.
      CHECK(House::Run(*sandbox, "echo evil > .git/hooks/pre-commit").code != 0);
      CHECK(House::Run(*sandbox, "mv .git .gut").code != 0);
      CHECK(House::Run(*sandbox, "echo x > .git/other").code == 0);
      CHECK(std::filesystem::is_empty(folder + "/.git/hooks"));
      CHECK(sandbox->Close(After(seconds(30))).ok());
    }
    CHECK(std::filesystem::exists(folder + "/mine"));

    SandboxIdentity reader = house.NewIdentity();
    reader.workspace = folder;
    reader.access = WorkspaceAccess::kReadOnly;
    auto sandbox = house.Open(reader);
    CHECK(sandbox->identity().workspace_bound == "read-only");
    CHECK(House::Run(*sandbox, "cat theirs").out == "before\nafter\n");
    CHECK(House::Run(*sandbox, "echo no > theirs").code != 0);
  }

  TEST_CASE("a workspace is full when it is full, and the host is not") {
    House house;
    auto sandbox = house.Open();
    const Ran ran = House::Run(*sandbox, "dd if=/dev/zero of=fill bs=1M 2>&1 | grep -c 'No space'");
    CHECK(ran.out == "1\n");
    CHECK(sandbox->WorkspaceUsed() < (66u << 20));
  }

  TEST_CASE("frozen, nothing runs; thawed, it goes on") {
    House house;
    auto sandbox = house.Open();
    CHECK(House::Run(*sandbox, "(while :; do date +%N > tick; sleep 0.02; done) >/dev/null 2>&1 &")
              .code == 0);
    auto frozen = sandbox->Freeze("a test", After(seconds(5)));
    REQUIRE_MESSAGE(frozen.ok(), frozen.status().ToString());
    CHECK(*frozen != "killed");
    CHECK(sandbox->state() == SandboxState::kFrozen);
    CHECK(sandbox->reason() == "a test");
    CHECK(sandbox->shim().status().code() == absl::StatusCode::kFailedPrecondition);
    CHECK(sandbox->Freeze("again", After(seconds(5))).status().code() ==
          absl::StatusCode::kFailedPrecondition);
    absl::Status told;
    auto registration = sandbox->OnLost([&](const absl::Status& why) { told = why; });
    CHECK(told.code() == absl::StatusCode::kFailedPrecondition);

    // Over a restart of the supervisor it stays frozen.
    const SandboxIdentity identity = sandbox->identity();
    sandbox.reset();
    auto adopted = Sandbox::Adopt(*house.host, identity, After(seconds(10)));
    REQUIRE_MESSAGE(adopted.ok(), adopted.status().ToString());
    CHECK((*adopted)->state() == SandboxState::kFrozen);
    CHECK((*adopted)->reason() == "a test");
    CHECK((*adopted)->Thaw(After(seconds(5))).ok());
    const Deadline patience = After(seconds(10));
    while (!(*adopted)->shim().ok() && std::chrono::steady_clock::now() < patience) {
      ::usleep(10'000);
    }
    CHECK(House::Run(**adopted, "a=$(cat tick); sleep 0.3; test \"$a\" != \"$(cat tick)\"").code ==
          0);
  }

  TEST_CASE("a restart adopts a sandbox with its running commands") {
    House house;
    auto sandbox = house.Open();
    shim::v1::CommandSpec spec;
    spec.set_shell("echo before; sleep 2; echo after");
    auto shim = sandbox->shim();
    REQUIRE(shim.ok());
    auto process = sandbox->processes().Start(*shim, "long", spec);
    ::usleep(300'000);
    const SandboxIdentity identity = sandbox->identity();
    process.reset();
    shim = absl::UnavailableError("");
    sandbox.reset();
    auto adopted = Sandbox::Adopt(*house.host, identity, After(seconds(10)));
    REQUIRE_MESSAGE(adopted.ok(), adopted.status().ToString());
    auto again = (*adopted)->processes().Find("long");
    REQUIRE(again != nullptr);
    const Deadline patience = After(seconds(10));
    while (!again->Info().has_exit() && std::chrono::steady_clock::now() < patience) {
      ::usleep(20'000);
    }
    CHECK(again->Info().exit().code() == 0);
    CHECK(again->Info().output_end() == 13);
    CHECK(House::Run(**adopted, "echo here").out == "here\n");
  }

  TEST_CASE("a container that is killed or removed is lost within a second, with the cause") {
    House house;
    struct {
      const char* how;
      const char* expected;
    } const rows[] = {{"kill", "exit code 137"}, {"remove", "removed"}};
    for (const auto& row : rows) {
      CAPTURE(row.how);
      auto sandbox = house.Open();
      std::mutex mu;
      std::condition_variable changed;
      absl::Status told;
      auto registration = sandbox->OnLost([&](const absl::Status& why) {
        std::lock_guard<std::mutex> lock(mu);
        told = why;
        changed.notify_all();
      });
      const std::string id = sandbox->identity().container_id;
      if (std::string(row.how) == "kill") {
        REQUIRE(house.engine->KillContainer(id, "SIGKILL", After(seconds(10))).ok());
      } else {
        REQUIRE(house.engine->RemoveContainer(id, After(seconds(10))).ok());
      }
      {
        std::unique_lock<std::mutex> lock(mu);
        changed.wait_for(lock, seconds(1), [&] { return !told.ok(); });
        CHECK(told.code() == absl::StatusCode::kUnavailable);
      }
      CHECK(sandbox->state() == SandboxState::kLost);
      // Either is what an engine says of a container that is on its way out.
      const std::string reason = sandbox->reason();
      CAPTURE(reason);
      CHECK((reason.find(row.expected) != std::string::npos ||
             reason.find("ended") != std::string::npos));
    }
  }

  TEST_CASE(
      "one made ahead becomes a session's, where mounts may come late and where they may not") {
    for (const bool root : {true, false}) {
      CAPTURE(root);
      House house([&](Config& config) {
        if (!root) {
          config.concessions = {"no-sized-workspace"};
        }
      });
      // As a member of the docker group finds it.
      house.abilities.root = house.abilities.root && root;
      house.abilities.loop_mounts = house.abilities.loop_mounts && root;
      SandboxIdentity identity = house.NewIdentity();
      auto pooled = Sandbox::MakeAhead(*house.host, identity, After(seconds(60)));
      house.made.push_back(identity);
      REQUIRE_MESSAGE(pooled.ok(), pooled.status().ToString());
      CHECK((*pooled)->ready());
      CHECK((*pooled)->memory_bytes() > 1u << 20);
      SandboxIdentity given = identity;
      given.workspace = house.dir + "/given";
      given.access = WorkspaceAccess::kReadWrite;
      // What cannot be mounted later is no use to a session with a folder of its own.
      CHECK((*pooled)->Serves(given) == root);
      CHECK((*pooled)->Serves(identity));
      SandboxIdentity session = identity;
      session.env = {{"FOR", "this session"}};
      const auto began = std::chrono::steady_clock::now();
      auto sandbox = (*pooled)->Claim(session, After(seconds(10)));
      REQUIRE_MESSAGE(sandbox.ok(), sandbox.status().ToString());
      MESSAGE("claimed in us: " << std::chrono::duration_cast<std::chrono::microseconds>(
                                       std::chrono::steady_clock::now() - began)
                                       .count());
      CHECK_FALSE((*pooled)->Claim(session, After(seconds(10))).ok());
      const Ran ran = House::Run(**sandbox, "echo $FOR; id -u; echo x > mine && stat -c %u mine");
      CHECK(ran.out == fmt::format("this session\n{0}\n{0}\n", identity.tool_uid));
      CHECK((*sandbox)->identity().workspace_bound == (root ? "sized" : "watched"));
      // It is adopted like any other.
      pooled->reset();
      sandbox->reset();
      auto adopted = Sandbox::Adopt(*house.host, session, After(seconds(30)));
      REQUIRE_MESSAGE(adopted.ok(), adopted.status().ToString());
      CHECK(House::Run(**adopted, "cat mine").out == "x\n");
    }
  }

  TEST_CASE("a late workspace that does not reach the container is found out") {
    House house;
    SandboxIdentity identity = house.NewIdentity();
    auto pooled = Sandbox::MakeAhead(*house.host, identity, After(seconds(60)));
    house.made.push_back(identity);
    REQUIRE_MESSAGE(pooled.ok(), pooled.status().ToString());
    // As where the engine's mounts are not ours: the tie is cut before.
    const SandboxPaths paths = SandboxPaths::For(house.config.paths, identity.id);
    REQUIRE(::mount(nullptr, (paths.slot + "/late").c_str(), nullptr, MS_PRIVATE, nullptr) == 0);
    auto sandbox = (*pooled)->Claim(identity, After(seconds(10)));
    CHECK(sandbox.status().code() == absl::StatusCode::kUnavailable);
    CHECK(sandbox.status().message().find("did not appear") != absl::string_view::npos);
  }

  TEST_CASE("those that open at once in a fresh state folder share one /etc/hosts") {
    House house;
    for (int i = 0; i < 16; ++i) {
      house.made.push_back(house.NewIdentity());
    }
    std::vector<absl::Status> outcomes(house.made.size());
    std::vector<std::thread> openings;
    for (size_t i = 0; i < outcomes.size(); ++i) {
      openings.emplace_back([&, i] {
        const auto paths = SandboxPaths::For(house.config.paths, house.made[i].id);
        outcomes[i] = MakeSandboxFolders(house.config.paths, paths);
        if (outcomes[i].ok()) {
          outcomes[i] = PrepareMounts(*house.host, house.made[i], paths).status();
        }
      });
    }
    for (std::thread& each : openings) {
      each.join();
    }
    for (size_t i = 0; i < outcomes.size(); ++i) {
      CHECK_MESSAGE(outcomes[i].ok(), outcomes[i].ToString());
      // One that was replaced has no name left, and the engine could not mount it.
      const auto paths = SandboxPaths::For(house.config.paths, house.made[i].id);
      struct stat about {};
      REQUIRE(::stat((paths.slot + "/hosts").c_str(), &about) == 0);
      CHECK(about.st_nlink == 1);
    }
  }

  TEST_CASE("what cannot be made says why and leaves nothing behind") {
    House house;
    struct {
      const char* what;
      std::function<void(SandboxIdentity&)> change;
      absl::StatusCode code;
      const char* message;
    } const rows[] = {
        {"no image", [](auto& i) { i.image = "creel-test/none:1"; }, absl::StatusCode::kNotFound,
         "is not on this host"},
        {"no runtime", [](auto& i) { i.runtime = "warp"; }, absl::StatusCode::kFailedPrecondition,
         "offers no runtime"},
        {"root tools", [](auto& i) { i.tool_uid = 0; }, absl::StatusCode::kFailedPrecondition,
         "tool-root"},
        {"/etc",
         [](auto& i) {
           i.workspace = "/etc";
           i.access = WorkspaceAccess::kReadOnly;
         },
         absl::StatusCode::kInvalidArgument, "not allowed"},
        {"not there",
         [](auto& i) {
           i.workspace = "/nowhere";
           i.access = WorkspaceAccess::kReadOnly;
         },
         absl::StatusCode::kNotFound, "/nowhere"},
        {"no disk", [](auto& i) { i.limits.free_space_floor_bytes = 1ull << 60; },
         absl::StatusCode::kResourceExhausted, "are kept free"},
        {"too little memory", [](auto& i) { i.limits.memory_bytes = 64u << 20; },
         absl::StatusCode::kInvalidArgument, "more than half"},
    };
    for (const auto& row : rows) {
      CAPTURE(row.what);
      SandboxIdentity identity = house.NewIdentity();
      row.change(identity);
      auto sandbox = house.Make(identity);
      CHECK(sandbox.status().code() == row.code);
      const std::string message(sandbox.status().message());
      CAPTURE(message);
      CHECK(message.find(row.message) != std::string::npos);
      const SandboxPaths paths = SandboxPaths::For(house.config.paths, identity.id);
      for (const std::string& path : {paths.link_dir, paths.slot, paths.own_dir}) {
        CAPTURE(path);
        CHECK_FALSE(std::filesystem::exists(path));
      }
    }
    // A shim that cannot run: the container ends at once, and that is what is said.
    const std::string broken = house.config.paths.state_dir + "/shim/broken";
    std::filesystem::create_directories(broken);
    std::ofstream(broken + "/creel-shim") << "#!/bin/sh\nexit 3\n";
    REQUIRE(::chmod((broken + "/creel-shim").c_str(), 0755) == 0);
    house.host->shim_path = broken + "/creel-shim";
    // Wherever its end finds the one who looks.
    for (int round = 0; round < 8; ++round) {
      SandboxIdentity identity = house.NewIdentity();
      const auto start = std::chrono::steady_clock::now();
      auto sandbox = house.Make(identity);
      CHECK(std::chrono::steady_clock::now() - start < seconds(10));
      CHECK(sandbox.status().code() == absl::StatusCode::kUnavailable);
      const std::string message(sandbox.status().message());
      CAPTURE(message);
      CHECK(message.find("exit code 3") != std::string::npos);
    }
  }
}

}  // namespace
}  // namespace creel
