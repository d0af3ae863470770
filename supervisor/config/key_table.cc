#include "supervisor/config/key_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <type_traits>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/config/egress_keys.h"
#include "supervisor/config/record_keys.h"
#include "supervisor/config/text.h"
#include "supervisor/config/value_readers.h"
#include "supervisor/config/web_keys.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using Read = std::function<KeyError(const YamlNode&, Config&)>;

constexpr uint64_t kMiB = 1ull << 20;
constexpr uint64_t kTiB = 1ull << 40;

// Each makes a reader for the field that `field` picks from the Config.

template <typename Field>
Read Text(Field field, size_t max_bytes = 255) {
  return [=](const YamlNode& node, Config& config) -> KeyError {
    std::string text;
    if (KeyError error = ReadText(node, text)) {
      return error;
    }
    if (text.size() > max_bytes) {
      return fmt::format("is longer than {} bytes", max_bytes);
    }
    field(config) = text;
    return {};
  };
}

template <typename Field>
Read Path(Field field, bool or_empty) {
  return
      [=](const YamlNode& node, Config& config) { return ReadPath(node, or_empty, field(config)); };
}

template <typename Field>
Read Bool(Field field) {
  return [=](const YamlNode& node, Config& config) { return ReadBool(node, field(config)); };
}

template <typename Field>
Read Whole(Field field, uint64_t least, uint64_t most) {
  return [=](const YamlNode& node, Config& config) {
    uint64_t value = 0;
    KeyError error = ReadWhole(node, least, most, value);
    if (!error) {
      field(config) = static_cast<std::remove_reference_t<decltype(field(config))>>(value);
    }
    return error;
  };
}

template <typename Field>
Read Size(Field field, uint64_t least, uint64_t most) {
  return [=](const YamlNode& node, Config& config) {
    return ReadSize(node, least, most, field(config));
  };
}

template <typename Field>
Read Duration(Field field, milliseconds least, milliseconds most) {
  return [=](const YamlNode& node, Config& config) {
    milliseconds value{};
    KeyError error = ReadDuration(node, least, most, value);
    if (!error) {
      using Unit = std::remove_reference_t<decltype(field(config))>;
      field(config) = std::chrono::duration_cast<Unit>(value);
    }
    return error;
  };
}

template <typename Field>
Read Mode(Field field) {
  return [=](const YamlNode& node, Config& config) { return ReadFileMode(node, field(config)); };
}

template <typename Enum, typename Field>
Read Choice(Field field, std::vector<std::string> words) {
  return [=, words = std::move(words)](const YamlNode& node, Config& config) {
    size_t index = 0;
    KeyError error = ReadChoice(node, words, index);
    if (!error) {
      field(config) = static_cast<Enum>(index);
    }
    return error;
  };
}

KeyError ReadRoots(const YamlNode& node, Config& config) {
  std::vector<std::string> roots;
  if (KeyError error = ReadTextList(node, roots)) {
    return error;
  }
  for (size_t i = 0; i < roots.size(); ++i) {
    if (KeyError error = ReadPath(node.items[i], /*or_empty=*/false, roots[i])) {
      return fmt::format("has an item that {}", *error);
    }
    if (roots[i] == "/") {
      return "must not allow the whole host ('/'); name the folders that hold workspaces";
    }
  }
  config.sandbox.workspace_roots = std::move(roots);
  return {};
}

KeyError ReadProtect(const YamlNode& node, Config& config) {
  std::vector<std::string> paths;
  if (KeyError error = ReadTextList(node, paths)) {
    return error;
  }
  for (const std::string& path : paths) {
    const bool inside =
        path[0] != '/' && fmt::format("/{}/", path).find("/../") == std::string::npos;
    if (!inside) {
      return fmt::format("wants paths inside the workspace, without '..', not '{}'",
                         Printable(path, 80));
    }
  }
  config.sandbox.protect = std::move(paths);
  return {};
}

KeyError ReadUids(const YamlNode& node, Config& config) {
  if (node.kind != YamlNode::Kind::kList) {
    return std::string("wants a list of user ids, such as [1000]");
  }
  std::vector<uint32_t> uids;
  for (const YamlNode& item : node.items) {
    uint64_t uid = 0;
    if (KeyError error = ReadWhole(item, 0, UINT32_MAX - 1, uid)) {
      return fmt::format("has an item that {}", *error);
    }
    uids.push_back(static_cast<uint32_t>(uid));
  }
  config.gateway_uids = std::move(uids);
  return {};
}

KeyError ReadPauseAfter(const YamlNode& node, Config& config) {
  std::string word;
  if (!ReadText(node, word) && word == "off") {
    config.sessions.pause_after = std::chrono::seconds(0);
    return {};
  }
  milliseconds value{};
  if (KeyError error =
          ReadDuration(node, milliseconds(1000), std::chrono::hours(365 * 24), value)) {
    return fmt::format("{}, or 'off'", *error);
  }
  config.sessions.pause_after = std::chrono::duration_cast<std::chrono::seconds>(value);
  return {};
}

KeyError ReadPoolSize(const YamlNode& node, Config& config) {
  WarmPoolConfig& pool = config.sessions.warm_pool;
  std::string word;
  pool.automatic = !ReadText(node, word) && word == "auto";
  pool.size = 0;
  if (pool.automatic) {
    return {};
  }
  uint64_t value = 0;
  if (KeyError error = ReadWhole(node, 0, 10'000, value)) {
    return fmt::format("{}, or 'auto'", *error);
  }
  pool.size = static_cast<uint32_t>(value);
  return {};
}

KeyError ReadConcessions(const YamlNode& node, Config& config) {
  std::vector<std::string> names;
  if (KeyError error = ReadTextList(node, names)) {
    return error;
  }
  for (const std::string& name : names) {
    if (std::find(kConcessions.begin(), kConcessions.end(), name) == kConcessions.end()) {
      const std::string near = Nearest(name, kConcessions);
      return fmt::format("has '{}', which is no concession{}", Printable(name, 80),
                         near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
    }
  }
  config.concessions = {names.begin(), names.end()};
  return {};
}

#define FIELD(name) \
  [](Config & c) -> auto& { return c.name; }

std::vector<KeySpec> MakeTable() {
  std::vector<KeySpec> table{
      {"engine.host", "text", "",
       "Where the Docker Engine answers: `unix:///path` or `tcp://host:port`. Empty: "
       "`$DOCKER_HOST`, "
       "else `unix:///var/run/docker.sock`.",
       Text(FIELD(engine.host))},
      {"engine.tls_ca", "path", "",
       "The engine's CA certificate (PEM), for `tcp://`. All three TLS files or none.",
       Path(FIELD(engine.tls_ca), true)},
      {"engine.tls_cert", "path", "", "Our client certificate (PEM).",
       Path(FIELD(engine.tls_cert), true)},
      {"engine.tls_key", "path", "", "Its key (PEM).", Path(FIELD(engine.tls_key), true)},
      {"engine.timeout", "time", "30s", "How long one call to the engine may take. 1s to 10m.",
       Duration(FIELD(engine.timeout), milliseconds(1000), milliseconds(600'000))},

      {"paths.run_dir", "path", "/run/creel",
       "Sockets, and a folder for each sandbox. Lost at a restart of the host.",
       Path(FIELD(paths.run_dir), false)},
      {"paths.state_dir", "path", "/var/lib/creel",
       "The database, workspaces of Creel's own, output that is kept, copies of the shim. Needs "
       "room, and a file system where programs may be executed.",
       Path(FIELD(paths.state_dir), false)},
      {"paths.shim", "path", "",
       "The `creel-shim` program. Empty: beside `creeld`, else `/usr/lib/creel/creel-shim`.",
       Path(FIELD(paths.shim), true)},

      {"gateway.socket", "path", "", "Where gateways connect. Empty: `gateway.sock` in run_dir.",
       Path(FIELD(gateway.path), true)},
      {"gateway.group", "text", "",
       "The socket's group, by name or number. Empty: that of the user who runs `creeld`.",
       Text(FIELD(gateway.group))},
      {"gateway.mode", "file mode", "0660",
       "The socket's mode. Open to all only together with `gateway.uids`.",
       Mode(FIELD(gateway.mode))},
      {"gateway.uids", "list of user ids", "[]",
       "Who may connect besides root. Empty: whoever the mode lets in.", ReadUids},
      {"gateway.import", "path", "",
       "The gateway's own configuration (JSON5), from which senders, groups, mention patterns and "
       "sandbox limits are taken. What stands in this file wins. See docs/policy.md.",
       Path(FIELD(gateway_import), true)},

      {"operator.socket", "path", "",
       "Where the operator connects. Empty: `operator.sock` in run_dir.",
       Path(FIELD(operator_door.path), true)},
      {"operator.group", "text", "",
       "The socket's group, such as `creel-operator`. Whoever is in it can do everything that "
       "Creel "
       "can. Empty: that of the user who runs `creeld`.",
       Text(FIELD(operator_door.group))},
      {"operator.mode", "file mode", "0660", "The socket's mode. Never open to all.",
       Mode(FIELD(operator_door.mode))},

      {"sandbox.mode", "off, non-main or all", "non-main",
       "Which sessions get a sandbox. `non-main`: all but the owner's own (`agent:ID:main`), which "
       "stays on the host. `off` needs the concession `mode-off`.",
       Choice<SandboxMode>(FIELD(sandbox.mode), {"off", "non-main", "all"})},
      {"sandbox.scope", "session, agent or shared", "session",
       "Which sessions share a sandbox: none, those of one agent, or all.",
       Choice<SandboxScope>(FIELD(sandbox.scope), {"session", "agent", "shared"})},
      {"sandbox.workspace_access", "none, ro or rw", "none",
       "The most that a sandbox may do with a workspace folder that the gateway names, and what it "
       "gets if the gateway does not say. `none`: the gateway may name no folder.",
       Choice<WorkspaceAccess>(FIELD(sandbox.workspace_access), {"none", "ro", "rw"})},
      {"sandbox.image", "text", "creel-sandbox:latest",
       "The image of the containers. Any image works; it is never pulled.",
       Text(FIELD(sandbox.image))},
      {"sandbox.runtime", "text", "",
       "The engine's runtime: `runc`, `runsc`, `kata`… Empty: the engine's default.",
       Text(FIELD(sandbox.runtime))},
      {"sandbox.workdir", "path", "/workspace", "Where the workspace lies in the sandbox.",
       Path(FIELD(sandbox.workdir), false)},
      {"sandbox.workspace_roots", "list of paths", "[]",
       "Folders of the host below which a gateway may name a workspace. Empty: none may be named.",
       ReadRoots},
      {"sandbox.protect", "list of paths", "[.git/hooks, .git/config, .envrc, .vscode, .idea]",
       "What is mounted read-only in a given workspace, as the host may run it later.",
       ReadProtect},
      {"sandbox.env", "names with values", "{}",
       "Variables for the tools, besides PATH, HOME and LANG. No secrets: a sandbox can read them.",
       [](const YamlNode& node, Config& c) { return ReadEnvironment(node, c.sandbox.env); }},
      {"sandbox.tool_uid_base", "number", "2000000",
       "First of the user ids that tools run as. They must belong to nobody on the host. 65536 and "
       "up.",
       Whole(FIELD(sandbox.tool_uid_base), 65'536, UINT32_MAX - 1)},
      {"sandbox.tool_uid_count", "number", "65536", "How many there are, one for each sandbox.",
       Whole(FIELD(sandbox.tool_uid_count), 1, 1u << 24)},

      {"sandbox.limits.memory", "size", "1GiB", "Memory; no swap comes on top. 64MiB and up.",
       Size(FIELD(sandbox.limits.memory_bytes), 64 * kMiB, 16 * kTiB)},
      {"sandbox.limits.cpus", "number", "1", "Processor cores. 0.01 to 1024.",
       [](const YamlNode& node, Config& c) {
         return ReadNumber(node, 0.01, 1024, c.sandbox.limits.cpus);
       }},
      {"sandbox.limits.pids", "number", "256", "Processes and threads alive at once. 16 to 65536.",
       Whole(FIELD(sandbox.limits.pids), 16, 65'536)},
      {"sandbox.limits.open_files", "number", "1024",
       "Open files of one tool process. 64 to 1048576.",
       Whole(FIELD(sandbox.limits.open_files), 64, 1u << 20)},
      {"sandbox.limits.tmp", "size", "256MiB",
       "`/tmp`. This, `run` and `shm` are memory: in sum at most half of `memory`.",
       Size(FIELD(sandbox.limits.tmp_bytes), kMiB, kTiB)},
      {"sandbox.limits.run", "size", "16MiB", "`/run`.",
       Size(FIELD(sandbox.limits.run_bytes), kMiB, kTiB)},
      {"sandbox.limits.shm", "size", "64MiB", "`/dev/shm`.",
       Size(FIELD(sandbox.limits.shm_bytes), kMiB, kTiB)},
      {"sandbox.limits.workspace", "size", "2GiB",
       "A workspace of Creel's own. 16MiB and up; disk is taken as it is used.",
       Size(FIELD(sandbox.limits.workspace_bytes), 16 * kMiB, 16 * kTiB)},
      {"sandbox.limits.blkio_weight", "number", "100",
       "Share of the disk's time against others. 10 to 1000.",
       Whole(FIELD(sandbox.limits.blkio_weight), 10, 1000)},
      {"sandbox.limits.read_bps", "size", "0",
       "Bytes a second read from the disk of state_dir. 0: no limit.",
       Size(FIELD(sandbox.limits.read_bps), 0, kTiB)},
      {"sandbox.limits.write_bps", "size", "0", "Bytes a second written to it. 0: no limit.",
       Size(FIELD(sandbox.limits.write_bps), 0, kTiB)},
      {"sandbox.limits.spool", "size", "16MiB",
       "Output of one command that is kept for readers that come later. 64KiB and up.",
       Size(FIELD(sandbox.limits.spool_bytes), 64u << 10, kTiB)},
      {"sandbox.limits.free_space_floor", "size", "1GiB",
       "No sandbox is opened when the disk of state_dir has less free space.",
       Size(FIELD(sandbox.limits.free_space_floor_bytes), 0, 16 * kTiB)},

      {"sessions.max", "number", "200", "Sandboxes at once. 1 to 10000.",
       Whole(FIELD(sessions.max), 1, 10'000)},
      {"sessions.max_per_sender", "number", "20", "Sandboxes at once that one sender opened.",
       Whole(FIELD(sessions.max_per_sender), 1, 10'000)},
      {"sessions.opens_per_minute", "number", "120", "Sandboxes made in a minute.",
       Whole(FIELD(sessions.opens_per_minute), 1, 60'000)},
      {"sessions.idle_timeout", "time", "24h",
       "A sandbox without a call for this long is closed, with its own workspace. 10s to 365d.",
       Duration(FIELD(sessions.idle_timeout), milliseconds(10'000), std::chrono::hours(365 * 24))},
      {"sessions.max_age", "time", "7d",
       "A sandbox of this age is closed, whatever it does. 1m to 365d.",
       Duration(FIELD(sessions.max_age), milliseconds(60'000), std::chrono::hours(365 * 24))},
      {"sessions.pause_after", "time or off", "10m",
       "A sandbox without a call for this long stands still, and takes no processor time, until "
       "the "
       "next call. 1s to 365d.",
       ReadPauseAfter},
      {"sessions.pause_running", "true or false", "false",
       "Whether one with commands or other processes of its own left running stands still too; "
       "else "
       "they keep it awake.",
       Bool(FIELD(sessions.pause_running))},
      {"sessions.warm_pool.size", "number or auto", "auto",
       "Containers kept started for sessions to come, so that these open in milliseconds. 0 to "
       "10000. `auto`: as many as were opened in the last ten minutes, at least 1 and at most 16.",
       ReadPoolSize},
      {"sessions.warm_pool.refill_rate", "number", "60",
       "How many may be started in a minute. 1 to 60000.",
       Whole(FIELD(sessions.warm_pool.refill_rate), 1, 60'000)},
      {"sessions.warm_pool.memory_ceiling", "size", "256MiB",
       "No more are started once those that wait take this much memory, the engine's process for "
       "each included. 0: none is.",
       Size(FIELD(sessions.warm_pool.memory_ceiling_bytes), 0, kTiB)},

      {"log.level", "trace, debug, info, warn, error or off", "info", "What is logged.",
       [](const YamlNode& node, Config& c) {
         const std::vector<std::string> words{"trace", "debug", "info", "warn", "error", "off"};
         size_t index = 0;
         KeyError error = ReadChoice(node, words, index);
         if (!error) {
           c.log.level = words[index];
         }
         return error;
       }},
      {"log.journald", "true or false", "false",
       "Lines for systemd's journal: a priority in front instead of time and colour.",
       Bool(FIELD(log.journald))},

      {"concessions", "list of names", "[]",
       "Weaknesses that you accept by name; without the name `creeld` refuses to go on. See "
       "docs/modes.md.",
       ReadConcessions},
  };
  for (KeySpec& spec : PolicyKeys()) {
    // Those without a section stand with the others of that kind, at the end.
    const std::string before =
        spec.path.find('.') == std::string::npos ? "concessions" : "log.level";
    const auto at = std::find_if(table.begin(), table.end(),
                                 [&](const KeySpec& other) { return other.path == before; });
    table.insert(at, std::move(spec));
  }
  const auto log = std::find_if(table.begin(), table.end(),
                                [](const KeySpec& spec) { return spec.path == "log.level"; });
  std::vector<KeySpec> egress = EgressKeys();
  table.insert(log, std::make_move_iterator(egress.begin()), std::make_move_iterator(egress.end()));
  return table;
}

#undef FIELD

}  // namespace

const std::vector<KeySpec>& KeyTable() {
  static const std::vector<KeySpec>& table = *new std::vector<KeySpec>([] {
    std::vector<KeySpec> all = MakeTable();
    // Before the concessions, which stand last.
    for (KeySpec& key : RecordKeys()) {
      all.insert(all.end() - 1, std::move(key));
    }
    for (KeySpec& key : WebKeys()) {
      all.insert(all.end() - 1, std::move(key));
    }
    return all;
  }());
  return table;
}

}  // namespace creel
