#include "supervisor/config/load_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "supervisor/base/escape.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/config/egress_keys.h"
#include "supervisor/config/gateway_import.h"
#include "supervisor/config/key_table.h"
#include "supervisor/config/read_file.h"
#include "supervisor/config/text.h"
#include "supervisor/config/value_readers.h"
#include "supervisor/config/web_keys.h"
#include "supervisor/config/yaml_tree.h"

namespace creel {
namespace {

constexpr size_t kMaxErrors = 20;
constexpr size_t kMaxFileBytes = 1u << 20;
constexpr size_t kMaxShownBytes = 256;

// A value as it may be shown on one line.
std::string ShowNode(const YamlNode& node, size_t max_bytes) {
  std::string text;
  const auto add = [&](const YamlNode& item) {
    if (text.size() < max_bytes) {
      text += text.empty() ? "" : ", ";
      text += ShowNode(item, max_bytes);
    }
  };
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "null";
    case YamlNode::Kind::kScalar:
      return Printable(node.text, max_bytes);
    case YamlNode::Kind::kList:
      for (const YamlNode& item : node.items) {
        add(item);
      }
      return Printable(fmt::format("[{}]", text), max_bytes);
    case YamlNode::Kind::kMap:
      // The values may be what a tool's environment holds.
      for (const auto& [key, value] : node.entries) {
        add(key);
      }
      return Printable(fmt::format("{{{}}}", text), max_bytes);
  }
  return text;
}

// Fills a Config from a tree and collects what is wrong.
class Loader {
 public:
  explicit Loader(std::string file) : file_(std::move(file)) {
    for (const KeySpec& spec : KeyTable()) {
      keys_[spec.path] = &spec;
      for (size_t dot = spec.path.find('.'); dot != std::string::npos;
           dot = spec.path.find('.', dot + 1)) {
        sections_.push_back(spec.path.substr(0, dot));
      }
    }
  }

  // `pattern` is `path` as the key table has it, with `*` for `names`.
  void ReadSection(const YamlNode& node, const std::string& path, const std::string& pattern,
                   const std::vector<std::string>& names) {
    if (node.kind == YamlNode::Kind::kNull) {
      return;
    }
    if (node.kind != YamlNode::Kind::kMap) {
      Wrong(node, path.empty() ? "the file must hold sections such as 'sandbox:'"
                               : fmt::format("'{}' is a section: write its keys below it", path));
      return;
    }
    for (const auto& [key, value] : node.entries) {
      const std::string name = path.empty() ? key.text : fmt::format("{}.{}", path, key.text);
      std::string form = pattern.empty() ? key.text : fmt::format("{}.{}", pattern, key.text);
      std::vector<std::string> here = names;
      if (const std::string any = pattern + ".*"; IsSection(any)) {
        form = any;
        here.push_back(key.text);
        if (const KeyError error = MakeNamedEntry(form, here, config_)) {
          Wrong(key, fmt::format("'{}' {}", Printable(name, 300), *error));
          continue;
        }
      }
      if (const auto found = keys_.find(form); found != keys_.end()) {
        ReadKey(*found->second, name, here, value);
      } else if (IsSection(form)) {
        places_[name] = {key.line, key.column};
        ReadSection(value, name, form, here);
      } else {
        Wrong(key, fmt::format("'{}' is not a key of the configuration{}", Printable(name, 120),
                               Hint(pattern, key.text)));
      }
    }
  }

  // What the gateway's own file says. What ReadSection reads later wins.
  void ReadImport(const YamlNode& root) {
    const YamlNode* const section = Child(root, "gateway");
    const YamlNode* const key = section == nullptr ? nullptr : Child(*section, "import");
    std::string path;
    if (key == nullptr || ReadPath(*key, /*or_empty=*/true, path) || path.empty()) {
      return;  // a path that is none is told by ReadSection
    }
    absl::StatusOr<GatewayImport> import = ImportGateway(path);
    if (!import.ok()) {
      foreign_errors_.emplace_back(import.status().message());
      return;
    }
    source_file_ = path;
    for (const ImportedValue& value : import->values) {
      source_key_ = value.source_key;
      ReadKey(*keys_.at(value.pattern), value.key, value.names, value.node);
    }
    source_file_.clear();
    source_key_.clear();
    config_.provenance.ignored = std::move(import->ignored);
    config_.provenance.dm_scope = std::move(import->dm_scope);
    config_.provenance.secrets = std::move(import->secrets);
  }

  // What no single key can know.
  void CheckTogether() {
    LimitsConfig& limits = config_.sandbox.limits;
    FitToImportedMemory(limits);
    const uint64_t in_memory = limits.tmp_bytes + limits.run_bytes + limits.shm_bytes;
    if (in_memory > limits.memory_bytes / 2) {
      WrongAt({"sandbox.limits.tmp", "sandbox.limits.shm", "sandbox.limits.run",
               "sandbox.limits.memory"},
              fmt::format("'sandbox.limits' tmp, run and shm are {} MiB in sum; they are memory, "
                          "and at most half of the {} MiB that 'memory' gives",
                          in_memory >> 20, limits.memory_bytes >> 20));
    }
    const uint64_t last_uid =
        uint64_t{config_.sandbox.tool_uid_base} + config_.sandbox.tool_uid_count - 1;
    if (last_uid > UINT32_MAX - 2) {
      WrongAt({"sandbox.tool_uid_count", "sandbox.tool_uid_base"},
              fmt::format("'sandbox.tool_uid_base' and '…_count' reach past the last user id ({})",
                          UINT32_MAX - 2));
    }
    if (config_.sandbox.tool_uid_count < config_.sessions.max) {
      WrongAt(
          {"sandbox.tool_uid_count", "sessions.max"},
          fmt::format("'sandbox.tool_uid_count' ({}) must be at least 'sessions.max' ({}): each "
                      "sandbox has a user id of its own",
                      config_.sandbox.tool_uid_count, config_.sessions.max));
    }
    if (config_.sandbox.mode == SandboxMode::kOff && !config_.concessions.contains("mode-off")) {
      WrongAt({"sandbox.mode"},
              "'sandbox.mode: off' leaves every session on the host; if that is what you want, add "
              "'concessions: [mode-off]'");
    }
    if (config_.sandbox.image.empty()) {
      WrongAt({"sandbox.image"}, "'sandbox.image' must name an image");
    }
    if (const KeyError error = CheckEgress(config_)) {
      WrongAt({"egress.hosts", "egress.services"}, *error);
    }
    if (const KeyError error = CheckWeb(config_)) {
      WrongAt({"web.listen"}, *error);
    }
    CheckPaths();
    CheckEngine();
    CheckDoors();
    CheckPolicy();
  }

  absl::StatusOr<Config> Finish() {
    if (errors_.empty() && foreign_errors_.empty()) {
      config_.file = file_;
      return std::move(config_);
    }
    std::stable_sort(errors_.begin(), errors_.end(), [](const Error& a, const Error& b) {
      return std::pair(a.line, a.column) < std::pair(b.line, b.column);
    });
    const size_t shown = std::min(errors_.size(), kMaxErrors);
    std::vector<std::string> lines = foreign_errors_;
    if (lines.size() > kMaxErrors) {
      lines.resize(kMaxErrors);
    }
    for (size_t i = 0; i < shown; ++i) {
      lines.push_back(
          fmt::format("{}:{}:{}: {}", file_, errors_[i].line, errors_[i].column, errors_[i].text));
    }
    if (shown < errors_.size()) {
      lines.push_back(fmt::format("and {} more", errors_.size() - shown));
    }
    return absl::InvalidArgumentError(fmt::format("{}", fmt::join(lines, "\n")));
  }

 private:
  struct Error {
    int line;
    int column;
    std::string text;
  };

  void Wrong(const YamlNode& node, std::string text) {
    errors_.push_back({node.line, node.column, std::move(text)});
  }

  [[nodiscard]] bool IsSection(const std::string& form) const {
    return std::find(sections_.begin(), sections_.end(), form) != sections_.end();
  }

  // The gateway knows of no tmpfs: what its memory limit leaves no room for is made smaller, unless
  // it is said here how large it is.
  void FitToImportedMemory(LimitsConfig& limits) const {
    const auto& origins = config_.provenance.origins;
    const auto memory = origins.find("sandbox.limits.memory");
    if (memory == origins.end() || memory->second.file == file_) {
      return;
    }
    const std::pair<const char*, uint64_t*> parts[] = {
        {"tmp", &limits.tmp_bytes}, {"run", &limits.run_bytes}, {"shm", &limits.shm_bytes}};
    for (const auto& [name, bytes] : parts) {
      if (!origins.contains(fmt::format("sandbox.limits.{}", name))) {
        const uint64_t share = name[0] == 't' ? 4 : 8;
        *bytes = std::min(*bytes, limits.memory_bytes / share);
      }
    }
  }

  static const YamlNode* Child(const YamlNode& node, std::string_view name) {
    for (const auto& [key, value] : node.entries) {
      if (key.text == name) {
        return &value;
      }
    }
    return nullptr;
  }

  void ReadKey(const KeySpec& spec, const std::string& name, const std::vector<std::string>& names,
               const YamlNode& value) {
    const KeyError error =
        spec.read_named ? spec.read_named(value, names, config_) : spec.read(value, config_);
    const bool foreign = !source_file_.empty();
    if (error && foreign) {
      foreign_errors_.push_back(fmt::format("{}:{}:{}: '{}' {}", source_file_, value.line,
                                            value.column, Printable(source_key_, 120), *error));
      return;
    }
    if (error) {
      Wrong(value, fmt::format("'{}' {}", Printable(name, 300), *error));
    }
    if (!foreign) {
      places_[name] = {value.line, value.column};
    }
    config_.provenance.origins[name] = {.file = foreign ? source_file_ : file_,
                                        .line = value.line,
                                        .value = ShowNode(value, kMaxShownBytes),
                                        .source_key = source_key_};
  }
  // At the first of `keys` that the file holds.
  void WrongAt(const std::vector<std::string>& keys, std::string text) {
    for (const std::string& key : keys) {
      if (const auto place = places_.find(key); place != places_.end()) {
        errors_.push_back({place->second.first, place->second.second, std::move(text)});
        return;
      }
    }
    errors_.push_back({1, 1, std::move(text)});
  }

  // The nearest key of the same section, else one of the same name elsewhere.
  [[nodiscard]] std::string Hint(const std::string& section, const std::string& word) const {
    const std::string prefix = section.empty() ? "" : section + ".";
    std::vector<std::string> here;
    std::string elsewhere;
    std::vector<std::string> paths = sections_;
    for (const auto& [path, spec] : keys_) {
      paths.push_back(path);
    }
    for (const std::string& path : paths) {
      if (path.starts_with(prefix) && path.find('.', prefix.size()) == std::string::npos) {
        here.push_back(path.substr(prefix.size()));
      }
      if (path.substr(path.rfind('.') + 1) == word) {
        // A key of one place is more likely meant than one of many.
        if (path.find('*') == std::string::npos) {
          return fmt::format("; did you mean '{}'?", path);
        }
        elsewhere = elsewhere.empty() ? path : elsewhere;
      }
    }
    if (!elsewhere.empty()) {
      return fmt::format("; did you mean '{}'?", elsewhere);
    }
    const std::string near = Nearest(word, here);
    if (!near.empty()) {
      return fmt::format("; did you mean '{}{}'?", prefix, near);
    }
    std::sort(here.begin(), here.end());
    here.erase(std::unique(here.begin(), here.end()), here.end());
    return fmt::format("; known here: {}", fmt::join(here, ", "));
  }

  void CheckPaths() {
    const std::string& run = config_.paths.run_dir;
    const std::string& state = config_.paths.state_dir;
    const auto below = [](const std::string& path, const std::string& folder) {
      return path == folder || path.starts_with(folder == "/" ? "/" : folder + "/");
    };
    for (const auto& [key, path] :
         {std::pair<std::string, std::string>{"paths.run_dir", run}, {"paths.state_dir", state}}) {
      static constexpr std::array kShared{"/",    "/bin", "/boot", "/dev",     "/etc", "/home",
                                          "/lib", "/opt", "/proc", "/root",    "/run", "/srv",
                                          "/sys", "/tmp", "/usr",  "/var/lib", "/var", "/var/run"};
      if (std::find(kShared.begin(), kShared.end(), path) != kShared.end()) {
        WrongAt({key}, fmt::format("'{}' must be a folder of Creel's own, not '{}'", key, path));
      }
    }
    if (below(run, state) || below(state, run)) {
      WrongAt({"paths.run_dir", "paths.state_dir"},
              "'paths.run_dir' and 'paths.state_dir' must not lie in each other");
    }
    for (const std::string& root : config_.sandbox.workspace_roots) {
      if (below(root, run) || below(root, state) || below(run, root) || below(state, root)) {
        WrongAt({"sandbox.workspace_roots"},
                fmt::format("'sandbox.workspace_roots' has '{}', which holds Creel's own folders",
                            root));
      }
    }
    const std::string& workdir = config_.sandbox.workdir;
    static constexpr std::array kTaken{"/proc", "/sys", "/dev", "/run", "/.creel", "/tmp",
                                       "/bin",  "/lib", "/usr", "/etc", "/sbin",   "/lib64"};
    for (const char* taken : kTaken) {
      if (workdir == "/" || below(workdir, taken)) {
        WrongAt({"sandbox.workdir"},
                fmt::format("'sandbox.workdir' must be a folder of its own, such as /workspace, "
                            "not '{}'",
                            workdir));
        break;
      }
    }
  }

  void CheckEngine() {
    const EngineConfig& engine = config_.engine;
    const bool local = engine.host.starts_with("unix:///");
    const bool remote = engine.host.starts_with("tcp://") && engine.host.size() > 6;
    if (!engine.host.empty() && !local && !remote) {
      WrongAt({"engine.host"},
              fmt::format("'engine.host' wants unix:///path or tcp://host:port, not '{}'",
                          Printable(engine.host, 80)));
    }
    const int files = (engine.tls_ca.empty() ? 0 : 1) + (engine.tls_cert.empty() ? 0 : 1) +
                      (engine.tls_key.empty() ? 0 : 1);
    if (files != 0 && files != 3) {
      WrongAt({"engine.tls_ca", "engine.tls_cert", "engine.tls_key"},
              "'engine.tls_ca', 'tls_cert' and 'tls_key' must all be given, or none");
    }
  }

  void CheckDoors() {
    DoorConfig& gateway = config_.gateway;
    DoorConfig& oper = config_.operator_door;
    if (gateway.path.empty()) {
      gateway.path = config_.paths.run_dir + "/gateway.sock";
    }
    if (oper.path.empty()) {
      oper.path = config_.paths.run_dir + "/operator.sock";
    }
    for (const auto& [key, path] :
         {std::pair<std::string, std::string>{"gateway.socket", gateway.path},
          {"operator.socket", oper.path}}) {
      constexpr size_t kMax = sizeof(sockaddr_un::sun_path) - 1;
      if (path.size() > kMax) {
        WrongAt({key, "paths.run_dir"},
                fmt::format("'{}' would be '{}', longer than the {} bytes of a socket's path", key,
                            path, kMax));
      }
    }
    if (gateway.path == oper.path) {
      WrongAt({"operator.socket", "gateway.socket"},
              "'gateway.socket' and 'operator.socket' must be two sockets");
    }
    if ((oper.mode & 0007) != 0) {
      WrongAt({"operator.mode"},
              "'operator.mode' must not open the socket to all: who can open it is the operator; "
              "use 'operator.group'");
    }
    if ((gateway.mode & 0007) != 0 && config_.gateway_uids.empty()) {
      WrongAt({"gateway.mode"},
              "'gateway.mode' opens the socket to all; say who may connect in 'gateway.uids'");
    }
  }

  void CheckPolicy() {
    PolicyConfig& policy = config_.policy;
    const auto known = [&](const std::string& level) { return policy.levels.contains(level); };
    std::vector<std::string> words;
    std::map<uint32_t, std::string> ranks;
    for (const auto& [name, level] : policy.levels) {
      words.push_back(name);
      const std::string key = fmt::format("levels.{}.rank", name);
      const bool built_in = name == kOwner || name == kFriend || name == kStranger;
      const uint32_t own = name == kOwner    ? kOwnerRank
                           : name == kFriend ? kFriendRank
                                             : kStrangerRank;
      if (built_in && level.rank != own) {
        WrongAt({key}, fmt::format("'{}' is {} and cannot be changed", key, own));
      } else if (!built_in && (level.rank <= kStrangerRank || level.rank >= kOwnerRank)) {
        WrongAt(
            {key, fmt::format("levels.{}", name)},
            fmt::format("'{}' must be from 1 to 99: a level of your own stands between stranger "
                        "and owner",
                        key));
      } else if (const auto [other, fresh] = ranks.emplace(level.rank, name); !fresh) {
        WrongAt({key}, fmt::format("'{}' is {}, as that of '{}'; no two levels have the same rank",
                                   key, level.rank, other->second));
      }
    }
    constexpr size_t kMaxLevels = 32;
    if (policy.levels.size() > kMaxLevels) {
      WrongAt({"levels"}, fmt::format("'levels' has more than {} levels", kMaxLevels));
    }
    const auto no_level = [&](const std::string& key, const std::string& level) {
      const std::string near = Nearest(level, words);
      WrongAt({key}, fmt::format("'{}' names '{}', which is no level{}", Printable(key, 120),
                                 Printable(level, 80),
                                 near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
    };
    if (!known(policy.unnamed)) {
      no_level("trust.unnamed", policy.unnamed);
    }
    for (const auto& [name, rule] : policy.rules) {
      for (const std::string& level : rule.levels) {
        if (!known(level)) {
          no_level(fmt::format("rules.{}.levels", name), level);
        }
      }
    }
  }

  std::string file_;
  Config config_;
  std::map<std::string, const KeySpec*> keys_;
  std::vector<std::string> sections_;
  std::map<std::string, std::pair<int, int>> places_;
  std::vector<Error> errors_;
  // Of the gateway's file, each with its place.
  std::vector<std::string> foreign_errors_;
  // While that file is read: its name, and the key's name there.
  std::string source_file_;
  std::string source_key_;
};

}  // namespace

absl::StatusOr<Config> ParseConfig(std::string_view text, const std::string& file) {
  ASSIGN_OR_RETURN(const YamlNode root, ParseYaml(text, file));
  Loader loader(file);
  loader.ReadImport(root);
  loader.ReadSection(root, "", "", {});
  loader.CheckTogether();
  return loader.Finish();
}

absl::StatusOr<Config> LoadConfig(const std::string& file) {
  ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(file, kMaxFileBytes + 1));
  return ParseConfig(text, file);
}

}  // namespace creel
