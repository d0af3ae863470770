#include "supervisor/engine/engine_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>

#include "supervisor/base/escape.h"

namespace creel::answers {
namespace {

using nlohmann::json;

constexpr size_t kMaxMessage = 4096;

absl::Status NoAnswer(std::string_view to) {
  return absl::InternalError(fmt::format("the engine's answer to '{}' cannot be understood", to));
}

absl::StatusOr<json> Parse(std::string_view body, json::value_t type, std::string_view to) {
  json value = json::parse(body, nullptr, false);
  if (value.is_discarded() || value.type() != type) {
    return NoAnswer(to);
  }
  return value;
}

// A member of an object; null where there is none.
const json& At(const json& object, const char* name) {
  static const json none;
  if (!object.is_object()) {
    return none;
  }
  const auto found = object.find(name);
  return found == object.end() ? none : *found;
}

std::string Text(const json& object, const char* name) {
  const json& value = At(object, name);
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool Flag(const json& object, const char* name) {
  const json& value = At(object, name);
  return value.is_boolean() && value.get<bool>();
}

uint64_t Count(const json& value) {
  if (value.is_number_unsigned()) {
    return value.get<uint64_t>();
  }
  return 0;  // negative ones, which stand for "no limit", included
}

int64_t Signed(const json& value) {
  if (value.is_number_unsigned()) {
    return static_cast<int64_t>(
        std::min<uint64_t>(value.get<uint64_t>(), std::numeric_limits<int64_t>::max()));
  }
  return value.is_number_integer() ? value.get<int64_t>() : 0;
}

int Int(const json& value) {
  return static_cast<int>(std::clamp<int64_t>(Signed(value), std::numeric_limits<int>::min(),
                                              std::numeric_limits<int>::max()));
}

std::vector<std::string> Texts(const json& list) {
  std::vector<std::string> out;
  if (list.is_array()) {
    for (const json& entry : list) {
      if (entry.is_string()) {
        out.push_back(entry.get<std::string>());
      }
    }
  }
  return out;
}

std::vector<std::string> Keys(const json& object) {
  std::vector<std::string> out;
  if (object.is_object()) {
    for (const auto& [key, value] : object.items()) {
      out.push_back(key);
    }
  }
  return out;
}

std::map<std::string, std::string> TextMap(const json& object) {
  std::map<std::string, std::string> out;
  if (object.is_object()) {
    for (const auto& [key, value] : object.items()) {
      if (value.is_string()) {
        out[key] = value.get<std::string>();
      }
    }
  }
  return out;
}

std::optional<ContainerState> StateOf(std::string_view word) {
  static constexpr std::pair<std::string_view, ContainerState> kStates[] = {
      {"created", ContainerState::kCreated},   {"running", ContainerState::kRunning},
      {"paused", ContainerState::kPaused},     {"restarting", ContainerState::kRestarting},
      {"removing", ContainerState::kRemoving}, {"exited", ContainerState::kExited},
      {"stopped", ContainerState::kExited},    {"dead", ContainerState::kDead},
  };
  for (const auto& [name, state] : kStates) {
    if (name == word) {
      return state;
    }
  }
  return std::nullopt;
}

std::string WithoutSlash(std::string name) {
  if (name.starts_with('/')) {
    name.erase(0, 1);
  }
  return name;
}

// RFC 3339 in UTC, as the engine writes it: "2026-11-23T23:10:51.106276342Z".
std::optional<std::chrono::system_clock::time_point> ReadTime(std::string_view text) {
  const auto number = [&text](size_t at, size_t size) -> std::optional<int> {
    int value = 0;
    if (at + size > text.size()) {
      return std::nullopt;
    }
    const char* const end = text.data() + at + size;
    const auto [stop, error] = std::from_chars(text.data() + at, end, value);
    return error == std::errc() && stop == end ? std::optional<int>(value) : std::nullopt;
  };
  const auto year = number(0, 4);
  const auto month = number(5, 2);
  const auto day = number(8, 2);
  const auto hour = number(11, 2);
  const auto minute = number(14, 2);
  const auto second = number(17, 2);
  if (!year || !month || !day || !hour || !minute || !second || *year < 1970 ||
      !text.ends_with('Z')) {
    return std::nullopt;
  }
  std::chrono::nanoseconds fraction{0};
  int64_t unit = 100'000'000;
  for (size_t i = 20; i + 1 < text.size() && unit > 0; ++i, unit /= 10) {
    if (std::isdigit(static_cast<unsigned char>(text[i])) == 0) {
      return std::nullopt;
    }
    fraction += std::chrono::nanoseconds(unit * (text[i] - '0'));
  }
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) {
    return std::nullopt;
  }
  return std::chrono::sys_days(date) + std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
         std::chrono::seconds(*second) +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(fraction);
}

// Page cache that the kernel drops when memory is short is no one's use of memory.
uint64_t MemoryInUse(const json& memory) {
  const uint64_t usage = Count(At(memory, "usage"));
  const json& details = At(memory, "stats");
  const json& hierarchical = At(details, "total_inactive_file");  // cgroup v1
  const uint64_t inactive =
      Count(hierarchical.is_null() ? At(details, "inactive_file") : hierarchical);
  return usage > inactive ? usage - inactive : usage;
}

uint64_t BlockBytes(const json& stats, std::string_view operation) {
  uint64_t sum = 0;
  const json& list = At(At(stats, "blkio_stats"), "io_service_bytes_recursive");
  if (list.is_array()) {
    for (const json& entry : list) {
      std::string op = Text(entry, "op");  // "Read" on cgroup v1, "read" on v2
      std::transform(op.begin(), op.end(), op.begin(),
                     [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
      if (op == operation) {
        sum += Count(At(entry, "value"));
      }
    }
  }
  return sum;
}

std::optional<size_t> Column(const std::vector<std::string>& titles, std::string_view title) {
  const auto found = std::find(titles.begin(), titles.end(), title);
  return found == titles.end() ? std::nullopt : std::optional<size_t>(found - titles.begin());
}

template <typename Number>
bool ReadNumber(const std::string& text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

absl::StatusOr<VersionRange> ReadVersion(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "version"));
  const std::optional<ApiVersion> newest = ApiVersion::Parse(Text(value, "ApiVersion"));
  if (!newest) {
    return NoAnswer("version");
  }
  // Engines that do not say what their oldest is take all that came before.
  const std::optional<ApiVersion> oldest = ApiVersion::Parse(Text(value, "MinAPIVersion"));
  return VersionRange{.oldest = oldest.value_or(ApiVersion{1, 0}), .newest = *newest};
}

absl::StatusOr<EngineInfo> ReadInfo(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "info"));
  EngineInfo info;
  info.version = Text(value, "ServerVersion");
  info.cgroup_version = Text(value, "CgroupVersion");
  info.default_runtime = Text(value, "DefaultRuntime");
  info.runtimes = Keys(At(value, "Runtimes"));
  info.security_options = Texts(At(value, "SecurityOptions"));
  info.storage_driver = Text(value, "Driver");
  info.root_dir = Text(value, "DockerRootDir");
  info.operating_system = Text(value, "OperatingSystem");
  info.kernel_version = Text(value, "KernelVersion");
  info.rootless = std::any_of(
      info.security_options.begin(), info.security_options.end(), [](const std::string& option) {
        return option == "name=rootless" || option.starts_with("name=rootless,");
      });
  info.live_restore = Flag(value, "LiveRestoreEnabled");
  info.cpus = Int(At(value, "NCPU"));
  info.memory_bytes = Signed(At(value, "MemTotal"));
  info.warnings = Texts(At(value, "Warnings"));
  return info;
}

absl::StatusOr<ImageInfo> ReadImage(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "inspect image"));
  ImageInfo image;
  image.id = Text(value, "Id");
  if (image.id.empty()) {
    return NoAnswer("inspect image");
  }
  const json& config = At(value, "Config");
  image.env = Texts(At(config, "Env"));
  image.volumes = Keys(At(config, "Volumes"));
  image.entrypoint = Texts(At(config, "Entrypoint"));
  image.architecture = Text(value, "Architecture");
  image.size_bytes = Signed(At(value, "Size"));
  return image;
}

absl::StatusOr<Created> ReadCreated(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "create container"));
  Created created{.id = Text(value, "Id"), .warnings = Texts(At(value, "Warnings"))};
  if (created.id.empty()) {
    return NoAnswer("create container");
  }
  return created;
}

absl::StatusOr<std::vector<std::string>> ReadWarnings(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "update container"));
  return Texts(At(value, "Warnings"));
}

absl::StatusOr<ContainerInfo> ReadContainer(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "inspect container"));
  const json& state = At(value, "State");
  const json& config = At(value, "Config");
  const std::optional<ContainerState> status = StateOf(Text(state, "Status"));
  ContainerInfo info;
  info.id = Text(value, "Id");
  if (info.id.empty() || !status) {
    return NoAnswer("inspect container");
  }
  info.name = WithoutSlash(Text(value, "Name"));
  info.image = Text(config, "Image");
  info.labels = TextMap(At(config, "Labels"));
  info.state = *status;
  info.pid = Int(At(state, "Pid"));
  info.exit_code = Int(At(state, "ExitCode"));
  info.oom_killed = Flag(state, "OOMKilled");
  info.error = Printable(Text(state, "Error"), kMaxMessage);
  info.json = body;
  return info;
}

absl::StatusOr<std::vector<ContainerInfo>> ReadContainerList(std::string_view body) {
  ASSIGN_OR_RETURN(const json list, Parse(body, json::value_t::array, "list containers"));
  std::vector<ContainerInfo> out;
  for (const json& entry : list) {
    const std::optional<ContainerState> status = StateOf(Text(entry, "State"));
    ContainerInfo info;
    info.id = Text(entry, "Id");
    if (info.id.empty() || !status) {
      return NoAnswer("list containers");
    }
    const std::vector<std::string> names = Texts(At(entry, "Names"));
    info.name = names.empty() ? std::string() : WithoutSlash(names.front());
    info.image = Text(entry, "Image");
    info.labels = TextMap(At(entry, "Labels"));
    info.state = *status;
    out.push_back(std::move(info));
  }
  return out;
}

absl::StatusOr<int> ReadExitStatus(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "wait"));
  const std::string error = Text(At(value, "Error"), "Message");
  if (!error.empty()) {
    return absl::InternalError(Printable(error, kMaxMessage));
  }
  const json& code = At(value, "StatusCode");
  if (!code.is_number_integer()) {
    return NoAnswer("wait");
  }
  return Int(code);
}

absl::StatusOr<std::vector<ProcessRow>> ReadTop(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "top"));
  const std::vector<std::string> titles = Texts(At(value, "Titles"));
  const std::optional<size_t> pid = Column(titles, "PID");
  const std::optional<size_t> uid = Column(titles, "UID");
  const std::optional<size_t> command = Column(titles, "COMMAND");
  if (!pid || !uid || !command) {
    return NoAnswer("top");
  }
  std::vector<ProcessRow> rows;
  const json& processes = At(value, "Processes");
  for (size_t i = 0; processes.is_array() && i < processes.size(); ++i) {
    const std::vector<std::string> fields = Texts(processes[i]);
    ProcessRow row;
    if (fields.size() != titles.size() || !ReadNumber(fields[*pid], row.pid) ||
        !ReadNumber(fields[*uid], row.uid)) {
      return NoAnswer("top");
    }
    row.command = fields[*command];
    rows.push_back(std::move(row));
  }
  return rows;
}

absl::StatusOr<ContainerStats> ReadStats(std::string_view body) {
  ASSIGN_OR_RETURN(const json value, Parse(body, json::value_t::object, "stats"));
  const std::string read = Text(value, "read");
  if (read.starts_with("0001-")) {
    return absl::FailedPreconditionError("the container is not running");
  }
  const auto at = ReadTime(read);
  if (!at) {
    return NoAnswer("stats");
  }
  ContainerStats stats;
  stats.at = *at;
  stats.cpu_total_ns = Count(At(At(At(value, "cpu_stats"), "cpu_usage"), "total_usage"));
  const json& memory = At(value, "memory_stats");
  stats.memory_bytes = MemoryInUse(memory);
  stats.memory_limit_bytes = Count(At(memory, "limit"));
  stats.pids = Count(At(At(value, "pids_stats"), "current"));
  stats.pids_limit = Count(At(At(value, "pids_stats"), "limit"));
  stats.block_read_bytes = BlockBytes(value, "read");
  stats.block_write_bytes = BlockBytes(value, "write");
  return stats;
}

absl::StatusOr<std::vector<FileChange>> ReadChanges(std::string_view body) {
  const json list = json::parse(body, nullptr, false);
  if (list.is_null()) {
    return std::vector<FileChange>{};  // as the engine says "none"
  }
  if (!list.is_array()) {
    return NoAnswer("changes");
  }
  std::vector<FileChange> changes;
  for (const json& entry : list) {
    const json& kind = At(entry, "Kind");
    FileChange change{.kind = ChangeKind::kModified, .path = Text(entry, "Path")};
    if (change.path.empty() || !kind.is_number_integer() || Signed(kind) < 0 || Signed(kind) > 2) {
      return NoAnswer("changes");
    }
    static constexpr ChangeKind kKinds[] = {ChangeKind::kModified, ChangeKind::kAdded,
                                            ChangeKind::kDeleted};
    change.kind = kKinds[Signed(kind)];
    changes.push_back(std::move(change));
  }
  return changes;
}

absl::StatusOr<EngineEvent> ReadEvent(std::string_view line) {
  ASSIGN_OR_RETURN(const json value, Parse(line, json::value_t::object, "events"));
  const json& actor = At(value, "Actor");
  EngineEvent event;
  event.type = Text(value, "Type");
  event.action = Text(value, "Action");
  event.id = Text(actor, "ID");
  if (event.type.empty() || event.action.empty()) {
    return NoAnswer("events");
  }
  event.attributes = TextMap(At(actor, "Attributes"));
  event.at = std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds(Signed(At(value, "timeNano")))));
  return event;
}

absl::StatusOr<BuildLine> ReadBuildLine(std::string_view line) {
  ASSIGN_OR_RETURN(const json value, Parse(line, json::value_t::object, "build"));
  if (const json& error = At(value, "error"); error.is_string()) {
    return BuildLine{.text = Printable(error.get<std::string>(), kMaxMessage), .failed = true};
  }
  std::string text = Text(value, "stream");
  if (text.empty()) {
    text = Text(value, "status");
  }
  while (text.ends_with('\n') || text.ends_with('\r')) {
    text.pop_back();
  }
  return BuildLine{.text = Printable(text, kMaxMessage), .failed = false};
}

absl::Status ErrorFor(long status, std::string_view body) {
  const json value = json::parse(body, nullptr, false);
  std::string message = Text(value, "message");
  if (message.empty()) {
    message = body;  // some of its answers are plain text
  }
  while (message.ends_with('\n')) {
    message.pop_back();
  }
  message = message.empty() ? fmt::format("the engine answers with status {} and no reason", status)
                            : Printable(message, kMaxMessage);
  switch (status) {
    case 400:
      return absl::InvalidArgumentError(message);
    case 401:
    case 403:
      return absl::PermissionDeniedError(message);
    case 404:
      return absl::NotFoundError(message);
    case 409:
      return absl::FailedPreconditionError(message);
    case 503:
      return absl::UnavailableError(message);
    default:
      return absl::InternalError(message);
  }
}

std::string ContainerFilter(const std::string& label) {
  const json filters = {{"label", json::array({label})}};
  return filters.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string EventFilter(const std::string& label) {
  const json filters = {{"label", json::array({label})}, {"type", json::array({"container"})}};
  return filters.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace creel::answers
