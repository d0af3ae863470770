// Against the real engine: $DOCKER_HOST or the default socket, with the image debian:bookworm-slim.

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/base/crypto.h"
#include "supervisor/base/mutex.h"
#include "supervisor/engine/docker_engine.h"
#include "supervisor/engine/event_watcher.h"
#include "supervisor/engine/http_client.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kImage = "debian:bookworm-slim";

Deadline Soon() { return After(seconds(60)); }

std::unique_ptr<DockerEngine> TheEngine() {
  auto engine = DockerEngine::Connect({}, Soon());
  REQUIRE_MESSAGE(engine.ok(), engine.status().ToString());
  return *std::move(engine);
}

// Labels what one test makes, and removes it in the end whatever happened.
class Traces {
 public:
  explicit Traces(Engine& engine) : engine_(engine), mark_(Hex(RandomBytes(8))) {}
  Traces(const Traces&) = delete;
  Traces& operator=(const Traces&) = delete;
  ~Traces() {
    for (const ContainerInfo& left : List()) {
      engine_.RemoveContainer(left.id, Soon()).IgnoreError();
    }
  }

  [[nodiscard]] std::string Label() const { return "creel.test=" + mark_; }

  std::vector<ContainerInfo> List() {
    auto list = engine_.ListContainers(Label(), Soon());
    return list.ok() ? *list : std::vector<ContainerInfo>{};
  }

  ContainerConfig Config(std::vector<std::string> command, const std::string& name = "a") {
    ContainerConfig config;
    config.name = fmt::format("creel-test-{}-{}", mark_, name);
    config.image = kImage;
    config.entrypoint = {"/bin/sh", "-c"};
    config.command = std::move(command);
    config.env = {{"PATH", "/usr/bin:/bin"}, {"GIVEN", "a b=c"}};
    config.labels = {{"creel.test", mark_}};
    config.seccomp_profile = R"({"defaultAction":"SCMP_ACT_ALLOW"})";
    config.tmpfs = {{.target = "/tmp", .size_bytes = 1 << 20, .uid = 7, .gid = 8}};
    config.memory_bytes = 64 << 20;
    config.nano_cpus = 500'000'000;
    config.pids_limit = 32;
    return config;
  }

 private:
  Engine& engine_;
  const std::string mark_;
};

// A ustar archive with one file.
std::string Tar(const std::string& name, const std::string& text) {
  std::string header(512, '\0');
  const auto put = [&header](size_t at, const std::string& value) {
    header.replace(at, value.size(), value);
  };
  put(0, name);
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  put(124, fmt::format("{:011o}", text.size()));
  put(136, "00000000000");
  put(148, "        ");
  put(156, "0");
  put(257, std::string("ustar\00000", 8));
  unsigned sum = 0;
  for (const char c : header) {
    sum += static_cast<unsigned char>(c);
  }
  put(148, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return header + text + std::string((512 - text.size() % 512) % 512 + 1024, '\0');
}

std::string ArchiveOf(Engine& engine, const std::string& id, const std::string& path) {
  std::string tar;
  const absl::Status status = engine.GetArchive(
      id, path,
      [&tar](std::string_view bytes) {
        tar += bytes;
        return true;
      },
      Soon());
  CHECK_MESSAGE(status.ok(), status.ToString());
  return tar;
}

// No one but a test wants this of the engine.
void RemoveImage(const std::string& tag) {
  const auto address = ResolveEngineAddress({});
  REQUIRE(address.ok());
  const auto answer = HttpClient(*address).Do(
      {.method = "DELETE", .target = "/images/" + tag + "?force=1", .deadline = Soon()});
  REQUIRE(answer.ok());
  CHECK(answer->status == 200);
}

}  // namespace

TEST_SUITE("DockerEngine with the real engine") {
  TEST_CASE("the engine says what it is") {
    const auto engine = TheEngine();
    CHECK(engine->Ping(Soon()).ok());
    const auto info = engine->Info(Soon());
    REQUIRE(info.ok());
    CHECK(info->version != "");
    CHECK(info->api_version.starts_with("1."));
    CHECK(info->default_runtime != "");
    CHECK(info->runtimes.size() >= 1);
    CHECK(info->cpus >= 1);
    CHECK(info->memory_bytes > 0);
    const auto image = engine->InspectImage(kImage, Soon());
    REQUIRE_MESSAGE(image.ok(), image.status().ToString());
    CHECK(image->id.starts_with("sha256:"));
    CHECK(image->size_bytes > 0);
    CHECK(absl::IsNotFound(engine->InspectImage("creel-no-such-image:1", Soon()).status()));
  }

  TEST_CASE("a container lives from create to remove and leaves nothing behind") {
    const auto engine = TheEngine();
    Traces traces(*engine);
    const auto id =
        engine->CreateContainer(traces.Config({"echo x > /tmp/f; sleep 1000 & wait"}), Soon());
    REQUIRE_MESSAGE(id.ok(), id.status().ToString());
    auto info = engine->InspectContainer(*id, Soon());
    REQUIRE(info.ok());
    CHECK(info->state == ContainerState::kCreated);
    CHECK(info->pid == 0);
    CHECK(absl::IsFailedPrecondition(engine->Stats(*id, Soon()).status()));
    CHECK(absl::IsFailedPrecondition(engine->PauseContainer(*id, Soon())));

    REQUIRE(engine->StartContainer(*id, Soon()).ok());
    CHECK(engine->StartContainer(*id, Soon()).ok());  // runs already
    info = engine->InspectContainer(*id, Soon());
    REQUIRE(info.ok());
    CHECK(info->state == ContainerState::kRunning);
    CHECK(info->pid > 0);
    CHECK(info->image == kImage);
    CHECK(info->labels.count("creel.test") == 1);
    CHECK(info->json.find("HostConfig") != std::string::npos);

    const auto list = traces.List();
    REQUIRE(list.size() == 1);
    CHECK(list[0].id == *id);
    CHECK(list[0].name == info->name);
    CHECK(list[0].state == ContainerState::kRunning);

    const auto rows = engine->Top(*id, Soon());
    REQUIRE_MESSAGE(rows.ok(), rows.status().ToString());
    bool pid_1_seen = false;
    for (const ProcessRow& row : *rows) {
      CHECK(row.uid == 0);
      pid_1_seen = pid_1_seen || row.pid == info->pid;
    }
    CHECK(pid_1_seen);

    const auto stats = engine->Stats(*id, Soon());
    REQUIRE_MESSAGE(stats.ok(), stats.status().ToString());
    CHECK(stats->memory_limit_bytes == 64u << 20);
    CHECK(stats->memory_bytes > 0);
    CHECK(stats->memory_bytes < 64u << 20);
    CHECK(stats->pids >= 1);
    CHECK(stats->pids_limit == 32);
    CHECK(stats->cpu_total_ns > 0);
    CHECK(std::chrono::abs(stats->at - std::chrono::system_clock::now()) < seconds(60));

    const absl::Status updated = engine->UpdateContainer(
        *id, {.memory_bytes = 48 << 20, .nano_cpus = 250'000'000, .pids = 20}, Soon());
    CHECK_MESSAGE(updated.ok(), updated.ToString());
    const auto less = engine->Stats(*id, Soon());
    REQUIRE(less.ok());
    CHECK(less->memory_limit_bytes == 48u << 20);
    CHECK(less->pids_limit == 20);
    CHECK(engine->InspectContainer(*id, Soon())->json.find("\"NanoCpus\":250000000") !=
          std::string::npos);
    // What is not named stays.
    REQUIRE(engine->UpdateContainer(*id, {.pids = 30}, Soon()).ok());
    CHECK(engine->Stats(*id, Soon())->memory_limit_bytes == 48u << 20);
    CHECK(engine->Stats(*id, Soon())->pids_limit == 30);

    REQUIRE(engine->PauseContainer(*id, Soon()).ok());
    CHECK(engine->InspectContainer(*id, Soon())->state == ContainerState::kPaused);
    CHECK(absl::IsFailedPrecondition(engine->PauseContainer(*id, Soon())));
    REQUIRE(engine->UnpauseContainer(*id, Soon()).ok());
    CHECK_FALSE(engine->UnpauseContainer(*id, Soon()).ok());

    CHECK(absl::IsDeadlineExceeded(engine->WaitContainer(*id, After(milliseconds(200))).status()));
    auto waiting =
        std::async(std::launch::async, [&] { return engine->WaitContainer(*id, Soon()); });
    REQUIRE(engine->KillContainer(*id, "SIGKILL", Soon()).ok());
    const auto status = waiting.get();
    REQUIRE_MESSAGE(status.ok(), status.status().ToString());
    CHECK(*status == 137);
    CHECK(absl::IsFailedPrecondition(engine->KillContainer(*id, "SIGKILL", Soon())));
    CHECK(absl::IsFailedPrecondition(engine->Stats(*id, Soon()).status()));

    CHECK(engine->RemoveContainer(*id, Soon()).ok());
    CHECK(engine->RemoveContainer(*id, Soon()).ok());  // gone already
    CHECK(traces.List().empty());
    CHECK(absl::IsNotFound(engine->InspectContainer(*id, Soon()).status()));
    CHECK(absl::IsNotFound(engine->StartContainer(*id, Soon())));
    CHECK(absl::IsNotFound(engine->WaitContainer(*id, Soon()).status()));
    CHECK(absl::IsNotFound(engine->Top(*id, Soon()).status()));
    CHECK(absl::IsNotFound(engine->Stats(*id, Soon()).status()));
    CHECK(absl::IsNotFound(engine->UpdateContainer(*id, {.pids = 30}, Soon())));
  }

  TEST_CASE("a paused container can be removed, and several callers may do it at once") {
    const auto engine = TheEngine();
    Traces traces(*engine);
    const auto id = engine->CreateContainer(traces.Config({"sleep 1000"}), Soon());
    REQUIRE_MESSAGE(id.ok(), id.status().ToString());
    REQUIRE(engine->StartContainer(*id, Soon()).ok());
    REQUIRE(engine->PauseContainer(*id, Soon()).ok());
    std::vector<std::future<absl::Status>> callers;
    for (int i = 0; i < 4; ++i) {
      callers.push_back(
          std::async(std::launch::async, [&] { return engine->RemoveContainer(*id, Soon()); }));
    }
    for (auto& caller : callers) {
      const absl::Status status = caller.get();
      CHECK_MESSAGE(status.ok(), status.ToString());
    }
    CHECK(traces.List().empty());
  }

  TEST_CASE("what cannot be made is refused and leaves nothing") {
    const auto engine = TheEngine();
    Traces traces(*engine);
    ContainerConfig config = traces.Config({"true"});
    config.image = "creel-no-such-image:1";
    CHECK(absl::IsNotFound(engine->CreateContainer(config, Soon()).status()));

    config = traces.Config({"true"});
    config.runtime = "creel-no-such-runtime";
    CHECK_FALSE(engine->CreateContainer(config, Soon()).ok());

    config = traces.Config({"true"});
    config.binds = {{.source = "/creel-no-such-folder", .target = "/mnt"}};
    const auto id = engine->CreateContainer(config, Soon());
    CHECK_FALSE(id.ok());
    CHECK(::access("/creel-no-such-folder", F_OK) != 0);
    CHECK(traces.List().empty());

    REQUIRE(engine->CreateContainer(traces.Config({"true"}), Soon()).ok());
    CHECK(absl::IsAlreadyExists(engine->CreateContainer(traces.Config({"true"}), Soon()).status()));
    CHECK(traces.List().size() == 1);
  }

  TEST_CASE("an image's ENV, VOLUME and HEALTHCHECK do not reach the container") {
    const auto engine = TheEngine();
    Traces traces(*engine);
    const std::string tag = "creel-test-image:" + Hex(RandomBytes(4));
    std::vector<std::string> lines;
    const absl::Status built = engine->BuildImage(
        Tar("Dockerfile", fmt::format("FROM {}\nENV LD_PRELOAD=/evil.so OTHER=1\n"
                                      "VOLUME [\"/data\", \"/tmp\"]\nENTRYPOINT [\"/bin/false\"]\n"
                                      "CMD [\"image\"]\nHEALTHCHECK CMD true\n",
                                      kImage)),
        tag, [&lines](std::string_view line) { lines.emplace_back(line); }, Soon());
    REQUIRE_MESSAGE(built.ok(), built.ToString());
    CHECK(lines.size() >= 2);
    const auto image = engine->InspectImage(tag, Soon());
    REQUIRE(image.ok());
    CHECK(image->entrypoint == std::vector<std::string>{"/bin/false"});
    CHECK(image->volumes == std::vector<std::string>{"/data", "/tmp"});

    ContainerConfig config = traces.Config(
        {"test \"$LD_PRELOAD$OTHER\" = '' || exit 3; "
         "test \"$GIVEN\" = 'a b=c' || exit 4; touch /data/x 2>/dev/null && exit 5; "
         "touch /root/x 2>/dev/null && exit 6; touch /tmp/x || exit 7; "
         "test \"$(stat -c %u:%g:%a /tmp)\" = 7:8:1777 || exit 8; "
         "grep -q 'NoNewPrivs:.1' /proc/1/status || exit 9; "
         "grep -q 'CapEff:.0000000000000000' /proc/1/status || exit 10; "
         "test \"$(ls /sys/class/net)\" = lo || exit 11; "
         "test \"$(ulimit -c)\" = 0 || exit 12; test \"$(ulimit -n)\" = 1024 || exit 13; "
         "test -z \"$HOSTNAME\" || exit 14; sleep 1000"});
    config.image = image->id;
    config.image_env = image->env;
    config.image_volumes = image->volumes;
    const auto id = engine->CreateContainer(config, Soon());
    REQUIRE_MESSAGE(id.ok(), id.status().ToString());
    const absl::Status started = engine->StartContainer(*id, Soon());
    REQUIRE_MESSAGE(started.ok(), started.ToString());
    // It ends at once if something is not as it should be.
    const auto ended = engine->WaitContainer(*id, After(seconds(2)));
    CHECK_MESSAGE(absl::IsDeadlineExceeded(ended.status()),
                  "exit status " << (ended.ok() ? *ended : -1));
    const auto info = engine->InspectContainer(*id, Soon());
    REQUIRE(info.ok());
    CHECK(info->json.find("\"Health\":") == std::string::npos);
    CHECK(info->json.find("\"Type\":\"volume\"") == std::string::npos);
    CHECK(engine->RemoveContainer(*id, Soon()).ok());

    const absl::Status broken = engine->BuildImage(
        Tar("Dockerfile", fmt::format("FROM {}\nCOPY not-in-the-context /\n", kImage)),
        tag + "-broken", {}, Soon());
    CHECK(broken.code() == absl::StatusCode::kInternal);
    CHECK_MESSAGE(broken.message().find("not-in-the-context") != std::string::npos,
                  broken.ToString());
    CHECK_FALSE(engine->BuildImage("no archive", tag + "-broken", {}, Soon()).ok());
    RemoveImage(tag);
  }

  TEST_CASE("what a container changed can be listed and fetched") {
    const auto engine = TheEngine();
    Traces traces(*engine);
    const auto id = engine->CreateContainer(traces.Config({"sleep 1000"}), Soon());
    REQUIRE(id.ok());
    REQUIRE(engine->StartContainer(*id, Soon()).ok());
    const auto changes = engine->Changes(*id, Soon());
    REQUIRE_MESSAGE(changes.ok(), changes.status().ToString());

    const std::string tar = ArchiveOf(*engine, *id, "/etc/debian_version");
    REQUIRE(tar.size() >= 1024);
    CHECK(std::string(tar.c_str()) == "debian_version");
    CHECK(ArchiveOf(*engine, *id, "/usr/share").size() > 100'000);
    CHECK(absl::IsNotFound(engine->GetArchive(
        *id, "/no such?file", [](std::string_view) { return true; }, Soon())));
    CHECK(absl::IsCancelled(engine->GetArchive(
        *id, "/usr/share", [](std::string_view) { return false; }, Soon())));
    CHECK(engine->Ping(Soon()).ok());
  }

  TEST_CASE("events of our containers come as they happen, and of no others") {
    const auto engine = TheEngine();
    Traces traces(*engine);
    Traces others(*engine);
    Mutex mu;
    std::vector<EngineEvent> events;
    std::promise<void> connected;
    {
      EventWatcher watcher(*engine, traces.Label(),
                           {.on_event =
                                [&](const EngineEvent& event) {
                                  MutexLock lock(mu);
                                  events.push_back(event);
                                },
                            .on_connected = [&] { connected.set_value(); },
                            .on_lost = {}});
      REQUIRE(connected.get_future().wait_for(seconds(10)) == std::future_status::ready);
      const auto other = engine->CreateContainer(others.Config({"true"}), Soon());
      REQUIRE(other.ok());
      const auto id = engine->CreateContainer(traces.Config({"exit 5"}), Soon());
      REQUIRE(id.ok());
      REQUIRE(engine->StartContainer(*id, Soon()).ok());
      const auto code = engine->WaitContainer(*id, Soon());
      REQUIRE(code.ok());
      CHECK(*code == 5);
      REQUIRE(engine->RemoveContainer(*id, Soon()).ok());
      for (int i = 0; i < 200; ++i) {
        {
          MutexLock lock(mu);
          if (!events.empty() && events.back().action == "destroy") {
            break;
          }
        }
        std::this_thread::sleep_for(milliseconds(10));
      }
      const auto before = std::chrono::steady_clock::now();
      MutexLock lock(mu);
      std::vector<std::string> actions;
      for (const EngineEvent& event : events) {
        CHECK(event.type == "container");
        CHECK(event.id == *id);
        CHECK(event.attributes.count("creel.test") == 1);
        actions.push_back(event.action);
        if (event.action == "die") {
          CHECK(event.attributes.at("exitCode") == "5");
        }
      }
      CHECK(actions == std::vector<std::string>{"create", "start", "die", "destroy"});
      CHECK(std::chrono::steady_clock::now() - before < seconds(1));
    }
  }

  TEST_CASE("a call takes a few milliseconds") {
    const auto engine = TheEngine();
    Traces traces(*engine);
    const auto id = engine->CreateContainer(traces.Config({"sleep 1000"}), Soon());
    REQUIRE(id.ok());
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 100; ++i) {
      REQUIRE(engine->InspectContainer(*id, Soon()).ok());
    }
    const auto each = (std::chrono::steady_clock::now() - begin) / 100;
    CHECK(each < milliseconds(20));
  }
}

}  // namespace creel
