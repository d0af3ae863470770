#include "supervisor/config/load_config.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "supervisor/config/key_table.h"

namespace creel {
namespace {

std::string Refusal(const std::string& text) {
  const absl::StatusOr<Config> config = ParseConfig(text, "c.yaml");
  return config.ok() ? "accepted" : std::string(config.status().message());
}

// The default file with every key in force.
std::string AllKeysInForce() {
  std::istringstream lines(DefaultConfigYaml());
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    const size_t word = line.find_first_not_of("# ");
    const bool comment = line.size() > 1 && line.find('#', 1) < word;
    if (!line.empty() && line[0] == '#' && !comment && line.find(": ") != std::string::npos) {
      line.erase(0, 1);
    } else if (!line.empty() && line[0] == '#' && !comment && line.ends_with(":")) {
      line.erase(0, 1);
    }
    out += line + "\n";
  }
  return out;
}

TEST_SUITE("LoadConfig") {
  TEST_CASE("an empty file is the defaults") {
    const absl::StatusOr<Config> config = ParseConfig("", "c.yaml");
    REQUIRE(config.ok());
    CHECK(config->sandbox.mode == SandboxMode::kNonMain);
    CHECK(config->sandbox.workspace_access == WorkspaceAccess::kNone);
    CHECK(config->sandbox.limits.memory_bytes == 1ull << 30);
    CHECK(config->sessions.idle_timeout == std::chrono::hours(24));
    CHECK(config->gateway.path == "/run/creel/gateway.sock");
    CHECK(config->operator_door.path == "/run/creel/operator.sock");
    CHECK(config->concessions.empty());
  }

  TEST_CASE("values arrive where they belong") {
    const struct {
      std::string text;
      std::function<bool(const Config&)> holds;
    } kRows[] = {
        {"engine: {host: 'unix:///x.sock'}",
         [](const Config& c) { return c.engine.host == "unix:///x.sock"; }},
        {"engine: {timeout: 5s}",
         [](const Config& c) { return c.engine.timeout == std::chrono::seconds(5); }},
        {"engine:\n", [](const Config& c) { return c.engine.host.empty(); }},
        {"paths: {run_dir: /run//c/./d/}",
         [](const Config& c) {
           return c.paths.run_dir == "/run/c/d" && c.gateway.path == "/run/c/d/gateway.sock";
         }},
        {"gateway: {mode: 0600}", [](const Config& c) { return c.gateway.mode == 0600; }},
        {"gateway: {mode: '0666', uids: [1000, 0]}",
         [](const Config& c) {
           return c.gateway.mode == 0666 && c.gateway_uids == std::vector<uint32_t>{1000, 0};
         }},
        {"operator: {group: creel-operator}",
         [](const Config& c) { return c.operator_door.group == "creel-operator"; }},
        {"sandbox: {mode: all}",
         [](const Config& c) { return c.sandbox.mode == SandboxMode::kAll; }},
        {"sandbox: {mode: off}\nconcessions: [mode-off]",
         [](const Config& c) { return c.sandbox.mode == SandboxMode::kOff; }},
        {"sandbox: {scope: agent}",
         [](const Config& c) { return c.sandbox.scope == SandboxScope::kAgent; }},
        {"sandbox: {workspace_access: rw, workspace_roots: [/home/me/w]}",
         [](const Config& c) {
           return c.sandbox.workspace_access == WorkspaceAccess::kReadWrite &&
                  c.sandbox.workspace_roots == std::vector<std::string>{"/home/me/w"};
         }},
        {"sandbox: {protect: []}", [](const Config& c) { return c.sandbox.protect.empty(); }},
        {"sandbox: {env: {TZ: UTC, EMPTY: , N: 5}}",
         [](const Config& c) {
           return c.sandbox.env ==
                  std::map<std::string, std::string>{{"TZ", "UTC"}, {"EMPTY", ""}, {"N", "5"}};
         }},
        {"sandbox: {limits: {memory: 2GiB}}",
         [](const Config& c) { return c.sandbox.limits.memory_bytes == 2ull << 30; }},
        {"sandbox: {limits: {memory: 1073741824}}",
         [](const Config& c) { return c.sandbox.limits.memory_bytes == 1ull << 30; }},
        {"sandbox: {limits: {cpus: 0.5, pids: 64, write_bps: 10MiB}}",
         [](const Config& c) {
           return c.sandbox.limits.cpus == 0.5 && c.sandbox.limits.pids == 64 &&
                  c.sandbox.limits.write_bps == 10u << 20;
         }},
        {"sessions: {max: 5, idle_timeout: 90m, max_age: 2d}",
         [](const Config& c) {
           return c.sessions.max == 5 && c.sessions.idle_timeout == std::chrono::minutes(90) &&
                  c.sessions.max_age == std::chrono::hours(48);
         }},
        {"levels: {friend: {limits: {memory: 512MiB, cpus: 0.5, pids: 99}}, stranger: {limits: "
         "{pids: 0}}}",
         [](const Config& c) {
           const LevelLimits& limits = c.policy.levels.at("friend").limits;
           return limits.memory_bytes == 512ull << 20 && limits.cpus == 0.5 && limits.pids == 99 &&
                  c.policy.levels.at("stranger").limits == LevelLimits{};
         }},
        {"sessions: {pause_after: off, pause_running: true, warm_pool: {size: 12, refill_rate: 5, "
         "memory_ceiling: 1GiB}}",
         [](const Config& c) {
           return c.sessions.pause_after == std::chrono::seconds(0) && c.sessions.pause_running &&
                  !c.sessions.warm_pool.automatic && c.sessions.warm_pool.size == 12 &&
                  c.sessions.warm_pool.refill_rate == 5 &&
                  c.sessions.warm_pool.memory_ceiling_bytes == 1ull << 30;
         }},
        {"sessions: {pause_after: 90s, warm_pool: {size: auto}}",
         [](const Config& c) {
           return c.sessions.pause_after == std::chrono::seconds(90) &&
                  c.sessions.warm_pool.automatic;
         }},
        {"log: {level: debug, journald: true}",
         [](const Config& c) { return c.log.level == "debug" && c.log.journald; }},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text);
      const absl::StatusOr<Config> config = ParseConfig(row.text, "c.yaml");
      CAPTURE(config.status().message().data());
      REQUIRE(config.ok());
      CHECK(row.holds(*config));
    }
  }

  TEST_CASE("what is wrong is named with its place and what to do") {
    const struct {
      const char* text;
      const char* holds;  // begins with file, line and column
    } kRows[] = {
        {"sandbx: {}",
         "c.yaml:1:1: 'sandbx' is not a key of the configuration; did you mean "
         "'sandbox'?"},
        {"sandbox:\n  imgae: x",
         "c.yaml:2:3: 'sandbox.imgae' is not a key of the configuration; "
         "did you mean 'sandbox.image'?"},
        {"sandbox: {limits: {memory_bytes: 1}}", "did you mean 'sandbox.limits.memory'?"},
        {"memory: 1GiB", "did you mean 'sandbox.limits.memory'?"},
        {"levels: {friend: {limits: {pids: 3}}}", "'levels.friend.limits.pids' "},
        {"levels: {friend: {limits: {memory: 1MiB}}}", "'levels.friend.limits.memory' "},
        {"engine: {qqqqqqqqq: 1}", "known here: host, timeout, tls_ca, tls_cert, tls_key"},
        {"sandbox: 5", "c.yaml:1:10: 'sandbox' is a section: write its keys below it"},
        {"[1, 2]", "c.yaml:1:1: the file must hold sections"},
        {"just text", "c.yaml:1:1: the file must hold sections"},
        {"sandbox: {image: [a]}", "'sandbox.image' wants text, not a list"},
        {"sandbox: {image: ''}", "'sandbox.image' must name an image"},
        {"sandbox: {image: \"a\\nb\"}", "holds control characters: 'a\\x0ab'"},
        {"sandbox: {mode: of}", "wants one of off, non-main, all, not 'of'; did you mean 'off'?"},
        {"sandbox: {mode: off}", "add 'concessions: [mode-off]'"},
        {"sandbox: {mode: [all]}", "wants one of off, non-main, all, not a list"},
        {"sandbox: {limits: {memory: 1GB}}", "wants a size such as 512MiB"},
        {"sandbox: {limits: {memory: -1}}", "wants a size such as 512MiB"},
        {"sandbox: {limits: {memory: '1GiB'}}", "wants a size such as 512MiB"},
        {"sandbox: {limits: {memory: 1MiB}}", "must be from 64MiB to 16TiB, not 1MiB"},
        {"sandbox: {limits: {memory: 99999999999999999999GiB}}", "must be from 64MiB to 16TiB"},
        {"sandbox: {limits: {cpus: 0}}", "must be from 0.01 to 1024, not 0"},
        {"sandbox: {limits: {cpus: nan}}", "wants a number from 0.01 to 1024, not 'nan'"},
        {"sandbox: {limits: {cpus: 1x}}", "wants a number from 0.01 to 1024, not '1x'"},
        {"sandbox: {limits: {pids: 1}}", "must be from 16 to 65536, not 1"},
        {"sandbox: {limits: {pids: 3.5}}", "wants a whole number from 16 to 65536, not '3.5'"},
        {"sandbox: {limits: {pids: '64'}}", "wants a whole number"},
        {"sandbox: {limits: {pids: 99999999999999999999}}", "must be from 16 to 65536"},
        {"sandbox: {limits: {pids: }}", "wants a whole number from 16 to 65536, not nothing"},
        {"sandbox: {limits: {blkio_weight: 5}}", "must be from 10 to 1000, not 5"},
        {"sandbox: {limits: {tmp: 512MiB, shm: 64MiB}}", "at most half of the 1024 MiB"},
        {"sandbox: {limits: {memory: 128MiB}}", "at most half of the 128 MiB"},
        {"sandbox: {tool_uid_base: 0}", "must be from 65536 to"},
        {"sandbox: {tool_uid_base: 4294967000}", "reach past the last user id"},
        {"sandbox: {tool_uid_count: 100}", "must be at least 'sessions.max' (200)"},
        {"sandbox: {workdir: workspace}", "wants a path from the root (/…), not 'workspace'"},
        {"sandbox: {workdir: /proc/x}", "must be a folder of its own"},
        {"sandbox: {workdir: /}", "must be a folder of its own"},
        {"sandbox: {workspace_roots: [/]}", "must not allow the whole host"},
        {"sandbox: {workspace_roots: [w]}", "has an item that wants a path from the root"},
        {"sandbox: {workspace_roots: /home}", "wants a list, such as [one, two], not '/home'"},
        {"sandbox: {workspace_roots: [/var/lib]}", "which holds Creel's own folders"},
        {"sandbox: {protect: [/etc]}", "wants paths inside the workspace, without '..'"},
        {"sandbox: {protect: [a/../../b]}", "wants paths inside the workspace, without '..'"},
        {"sandbox: {env: {'A=B': x}}", "cannot have the name 'A=B'"},
        {"sandbox: {env: {9A: x}}", "cannot have the name '9A'"},
        {"sandbox: {env: {A: [1]}}", "wants text for 'A', not a list"},
        {"sandbox: {env: [A]}", "wants names with values"},
        {"paths: {run_dir: /run}", "must be a folder of Creel's own, not '/run'"},
        {"paths: {run_dir: /run/../etc}", "must not hold '..'"},
        {"paths: {run_dir: /a/b, state_dir: /a/b/c}", "must not lie in each other"},
        {"paths: {run_dir: /run/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaa}",
         "longer than the 107 bytes of a socket's path"},
        {"engine: {host: 'http://x'}", "wants unix:///path or tcp://host:port"},
        {"engine: {host: 'unix://x'}", "wants unix:///path or tcp://host:port"},
        {"engine: {tls_ca: /a}", "must all be given, or none"},
        {"engine: {timeout: 30}", "wants a time with its unit"},
        {"engine: {timeout: 1ms}", "must be from 1s to 10m, not 1ms"},
        {"gateway: {mode: 0999}", "wants an octal file mode such as 0660, not '0999'"},
        {"gateway: {mode: 07777}", "wants an octal file mode"},
        {"gateway: {mode: 0666}", "say who may connect in 'gateway.uids'"},
        {"gateway: {uids: 1000}", "wants a list of user ids"},
        {"gateway: {uids: [me]}", "has an item that wants a whole number"},
        {"gateway: {socket: /run/x.sock}\noperator: {socket: /run/x.sock}", "must be two sockets"},
        {"operator: {mode: 0666}", "'operator.mode' must not open the socket to all"},
        {"sessions: {max: 0}", "must be from 1 to 10000, not 0"},
        {"sessions: {idle_timeout: 1s}", "must be from 10s to 365d, not 1s"},
        {"sessions: {idle_timeout: 24}", "wants a time with its unit"},
        {"sessions: {pause_after: 0s}", "or 'off'"},
        {"sessions: {warm_pool: {size: some}}", "or 'auto'"},
        {"sessions: {warm_pool: {size: -1}}", "or 'auto'"},
        {"sessions: {warm_pool: {refill_rate: 0}}", "refill_rate"},
        {"log: {level: verbose}", "wants one of trace, debug, info, warn, error, off"},
        {"log: {journald: yes}", "wants true or false, not 'yes'"},
        {"concessions: [mode-of]",
         "has 'mode-of', which is no concession; did you mean "
         "'mode-off'?"},
        {"concessions: mode-off", "wants a list"},
        {"sandbox: {mode: all}\nsandbox: {}", "c.yaml:2:1: 'sandbox' stands here twice"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text);
      const std::string got = Refusal(row.text);
      CAPTURE(got);
      CHECK(got.starts_with("c.yaml:"));
      CHECK(got.find(row.holds) != std::string::npos);
    }
  }

  TEST_CASE("all errors come at once, in the order of the file, and not more than 20") {
    const std::string got = Refusal("sandbox: {limits: {pids: 1, cpus: x}}\nlog: {level: 1}");
    CHECK(std::count(got.begin(), got.end(), '\n') == 2);
    CHECK(got.find(":1:26:") < got.find(":2:14:"));
    std::string many;
    for (int i = 0; i < 30; ++i) {
      many += "zzzzzzzzzzzzz" + std::to_string(i) + ": 1\n";
    }
    const std::string twenty = Refusal(many);
    CHECK(std::count(twenty.begin(), twenty.end(), '\n') == 20);
    CHECK(twenty.ends_with("and 10 more"));
  }

  TEST_CASE("the printed defaults are the defaults") {
    const std::string text = AllKeysInForce();
    CAPTURE(text);
    const absl::StatusOr<Config> parsed = ParseConfig(text, "c.yaml");
    const std::string why(parsed.status().message());
    CAPTURE(why);
    REQUIRE(parsed.ok());
    // Each key is there once, and reads as what the struct starts with.
    const absl::StatusOr<Config> empty = ParseConfig("", "c.yaml");
    CHECK(parsed->engine.timeout == empty->engine.timeout);
    CHECK(parsed->paths.run_dir == empty->paths.run_dir);
    CHECK(parsed->paths.state_dir == empty->paths.state_dir);
    CHECK(parsed->gateway.mode == empty->gateway.mode);
    CHECK(parsed->operator_door.mode == empty->operator_door.mode);
    CHECK(parsed->sandbox.mode == empty->sandbox.mode);
    CHECK(parsed->sandbox.scope == empty->sandbox.scope);
    CHECK(parsed->sandbox.workspace_access == empty->sandbox.workspace_access);
    CHECK(parsed->sandbox.image == empty->sandbox.image);
    CHECK(parsed->sandbox.workdir == empty->sandbox.workdir);
    CHECK(parsed->sandbox.protect == empty->sandbox.protect);
    CHECK(parsed->sandbox.tool_uid_base == empty->sandbox.tool_uid_base);
    CHECK(parsed->sandbox.tool_uid_count == empty->sandbox.tool_uid_count);
    const LimitsConfig& a = parsed->sandbox.limits;
    const LimitsConfig& b = empty->sandbox.limits;
    CHECK(a.memory_bytes == b.memory_bytes);
    CHECK(a.cpus == b.cpus);
    CHECK(a.pids == b.pids);
    CHECK(a.open_files == b.open_files);
    CHECK(a.tmp_bytes == b.tmp_bytes);
    CHECK(a.run_bytes == b.run_bytes);
    CHECK(a.shm_bytes == b.shm_bytes);
    CHECK(a.workspace_bytes == b.workspace_bytes);
    CHECK(a.blkio_weight == b.blkio_weight);
    CHECK(a.read_bps == b.read_bps);
    CHECK(a.write_bps == b.write_bps);
    CHECK(a.spool_bytes == b.spool_bytes);
    CHECK(a.free_space_floor_bytes == b.free_space_floor_bytes);
    CHECK(parsed->sessions.max == empty->sessions.max);
    CHECK(parsed->sessions.max_per_sender == empty->sessions.max_per_sender);
    CHECK(parsed->sessions.opens_per_minute == empty->sessions.opens_per_minute);
    CHECK(parsed->sessions.idle_timeout == empty->sessions.idle_timeout);
    CHECK(parsed->sessions.max_age == empty->sessions.max_age);
    CHECK(parsed->log.level == empty->log.level);
    CHECK(parsed->log.journald == empty->log.journald);
    for (const KeySpec& spec : KeyTable()) {
      CAPTURE(spec.path);
      const std::string word = spec.path.substr(spec.path.rfind('.') + 1) + ": ";
      CHECK(text.find(word) != std::string::npos);
    }
  }

  TEST_CASE("the page of the documentation is the key table's") {
    std::ifstream file(CREEL_CONFIG_REFERENCE);
    std::stringstream page;
    page << file.rdbuf();
    // To bring it up to date: creeld --print-config-reference > docs/configuration.md
    CHECK(page.str() == ConfigReference());
  }

  TEST_CASE("files that cannot be read are refused and never waited for") {
    char folder[] = "/tmp/creel-config-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    const std::string base(folder);
    CHECK(LoadConfig(base + "/none.yaml").status().code() == absl::StatusCode::kNotFound);
    CHECK(LoadConfig(base).status().code() == absl::StatusCode::kInvalidArgument);
    const std::string fifo = base + "/fifo";
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    CHECK(LoadConfig(fifo).status().code() == absl::StatusCode::kInvalidArgument);
    const std::string good = base + "/good.yaml";
    std::ofstream(good) << "sessions: {max: 7}\n";
    const absl::StatusOr<Config> config = LoadConfig(good);
    REQUIRE(config.ok());
    CHECK(config->sessions.max == 7);
    CHECK(config->file == good);
    ::unlink(good.c_str());
    ::unlink(fifo.c_str());
    ::rmdir(folder);
  }
}

}  // namespace
}  // namespace creel
