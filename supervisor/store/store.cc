#include "supervisor/store/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "supervisor/base/crypto.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/store/schema.h"
#include "supervisor/store/sqlite.h"
#include "supervisor/store/state_lock.h"

namespace creel {
namespace {

using std::chrono::system_clock;

constexpr std::string_view kColumns =
    "sandbox_id, session, sender, key, tool_uid, tool_gid, container_id, image, runtime, "
    "workspace, "
    "access, spec_hash, shim_sha256, workspace_bound, env, limits, state, reason, opened_at, "
    "last_call_at";

int64_t Micros(system_clock::time_point at) {
  return std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count();
}

system_clock::time_point FromMicros(int64_t micros) {
  return system_clock::time_point(std::chrono::microseconds(micros));
}

// As in /proc/PID/environ: neither names nor values can hold NUL, nor names `=`.
std::string PackEnv(const std::map<std::string, std::string>& env) {
  std::string packed;
  for (const auto& [name, value] : env) {
    packed += name;
    packed += '=';
    packed += value;
    packed += '\0';
  }
  return packed;
}

std::map<std::string, std::string> UnpackEnv(std::string_view packed) {
  std::map<std::string, std::string> env;
  while (!packed.empty()) {
    const size_t end = std::min(packed.find('\0'), packed.size());
    const std::string_view pair = packed.substr(0, end);
    packed.remove_prefix(std::min(end + 1, packed.size()));
    if (const size_t equals = pair.find('='); equals != std::string_view::npos) {
      env.emplace(pair.substr(0, equals), pair.substr(equals + 1));
    }
  }
  return env;
}

absl::Status MakePrivateFolder(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, fmt::format("make the state folder '{}'", directory));
  }
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, fmt::format("open the state folder '{}'", directory));
  }
  if (info.st_uid != ::geteuid()) {
    return absl::PermissionDeniedError(fmt::format(
        "the state folder '{}' belongs to uid {}, and creeld runs as uid {}; give it to "
        "that user, or choose another (paths.state_dir)",
        directory, info.st_uid, ::geteuid()));
  }
  if ((info.st_mode & 0777) != 0700 && ::fchmod(fd.get(), 0700) != 0) {
    return ErrnoStatus(errno, fmt::format("close the state folder '{}' to others", directory));
  }
  return absl::OkStatus();
}

absl::StatusOr<SqliteHandle> OpenDatabase(const std::string& path) {
  // Made here, as SQLite would make it with another mode. Its journal files get the mode of this.
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid() || ::fchmod(fd.get(), 0600) != 0) {
    return ErrnoStatus(errno, fmt::format("open the database '{}'", path));
  }
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(
      path.c_str(), &raw,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
      nullptr);
  SqliteHandle db(raw);
  if (code != SQLITE_OK) {
    return SqliteStatus(raw, code, fmt::format("open the database '{}'", path));
  }
  sqlite3_busy_timeout(db.get(), 5000);
  return db;
}

// kDataLoss if the file is not a sound database.
absl::Status CheckAndMigrate(sqlite3* db) {
  ASSIGN_OR_RETURN(SqliteStatement check, SqliteStatement::Prepare(db, "PRAGMA quick_check(1)"));
  ASSIGN_OR_RETURN(const bool row, check.Step());
  if (!row || check.Text(0) != "ok") {
    return absl::DataLossError(fmt::format("the database is damaged: {}", check.Text(0)));
  }
  check.Reset();
  RETURN_IF_ERROR(SqliteExec(db, "PRAGMA journal_mode = WAL"));
  // A commit reaches the kernel at once and so outlives this process; the disk follows at the
  // next checkpoint.
  RETURN_IF_ERROR(SqliteExec(db, "PRAGMA synchronous = NORMAL"));
  RETURN_IF_ERROR(SqliteExec(db, "PRAGMA secure_delete = ON"));
  RETURN_IF_ERROR(SqliteExec(db, "PRAGMA trusted_schema = OFF"));
  return Migrate(db, NewestSchema());
}

// Renames the database and its journal files; returns the new name.
absl::StatusOr<std::string> SetAside(const std::string& path) {
  std::array<char, 32> stamp{};
  const time_t now = ::time(nullptr);
  struct tm utc {};
  ::gmtime_r(&now, &utc);
  ::strftime(stamp.data(), stamp.size(), "%Y%m%dT%H%M%SZ", &utc);
  std::string aside = fmt::format("{}.damaged-{}", path, stamp.data());
  for (int i = 2; ::access(aside.c_str(), F_OK) == 0; ++i) {
    aside = fmt::format("{}.damaged-{}-{}", path, stamp.data(), i);
  }
  for (const char* suffix : {"-wal", "-shm", ""}) {
    if (::rename((path + suffix).c_str(), (aside + suffix).c_str()) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, fmt::format("set the damaged database '{}' aside", path));
    }
  }
  return aside;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) {
    return ErrnoStatus(errno, fmt::format("open '{}'", path));
  }
  std::array<char, 256> text{};
  const ssize_t got = ::read(fd.get(), text.data(), text.size());
  if (got < 0) {
    return ErrnoStatus(errno, fmt::format("read '{}'", path));
  }
  return std::string(text.data(), static_cast<size_t>(got));
}

bool IsInstallId(std::string_view id) {
  return id.size() == 16 && id.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// The id lies in a file of its own, beside the database: when the database is damaged, containers
// must still be known as ours.
absl::StatusOr<std::string> InstallId(const std::string& directory) {
  const std::string path = directory + "/install-id";
  absl::StatusOr<std::string> text = ReadSmallFile(path);
  if (text.ok()) {
    const std::string id = text->substr(0, text->find('\n'));
    if (!IsInstallId(id)) {
      return absl::FailedPreconditionError(
          fmt::format("'{}' does not hold 16 hexadecimal digits; restore it (it is the label "
                      "'creel.install' of the containers), or remove it if there are none",
                      path));
    }
    return id;
  }
  if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  const std::string id = Hex(RandomBytes(8));
  const std::string fresh = path + ".new";
  UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  const std::string line = id + "\n";
  if (!fd.valid() ||
      ::write(fd.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size()) ||
      ::fsync(fd.get()) != 0 || ::rename(fresh.c_str(), path.c_str()) != 0) {
    return ErrnoStatus(errno, fmt::format("write '{}'", path));
  }
  return id;
}

class SqliteStore final : public Store {
 public:
  SqliteStore(StateLock lock, SqliteHandle db, std::string set_aside, std::string install_id)
      : lock_(std::move(lock)),
        set_aside_(std::move(set_aside)),
        install_id_(std::move(install_id)),
        db_(std::move(db)) {}

  absl::Status Prepare() {
    MutexLock hold(mu_);
    ASSIGN_OR_RETURN(put_, SqliteStatement::Prepare(
                               db_.get(), fmt::format("INSERT OR REPLACE INTO sessions ({}) VALUES "
                                                      "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                                                      kColumns)));
    ASSIGN_OR_RETURN(
        remove_, SqliteStatement::Prepare(db_.get(), "DELETE FROM sessions WHERE sandbox_id = ?"));
    ASSIGN_OR_RETURN(
        list_, SqliteStatement::Prepare(
                   db_.get(), fmt::format("SELECT {} FROM sessions ORDER BY opened_at", kColumns)));
    ASSIGN_OR_RETURN(touch_, SqliteStatement::Prepare(db_.get(),
                                                      "UPDATE sessions SET last_call_at = ? WHERE "
                                                      "sandbox_id = ?"));
    ASSIGN_OR_RETURN(
        put_head_,
        SqliteStatement::Prepare(db_.get(), "INSERT OR REPLACE INTO record_head VALUES (1, ?, ?)"));
    return absl::OkStatus();
  }

  [[nodiscard]] const std::string& set_aside() const override { return set_aside_; }
  [[nodiscard]] const std::string& install_id() const override { return install_id_; }

  absl::Status Put(const SessionRecord& record) override {
    MutexLock hold(mu_);
    int n = 0;
    put_.BindText(++n, record.sandbox_id);
    put_.BindText(++n, record.session);
    put_.BindText(++n, record.sender);
    put_.BindBlob(++n, record.key);
    put_.BindNumber(++n, record.tool_uid);
    put_.BindNumber(++n, record.tool_gid);
    put_.BindText(++n, record.container_id);
    put_.BindText(++n, record.image);
    put_.BindText(++n, record.runtime);
    put_.BindText(++n, record.workspace);
    put_.BindText(++n, record.access);
    put_.BindText(++n, record.spec_hash);
    put_.BindText(++n, record.shim_sha256);
    put_.BindText(++n, record.workspace_bound);
    put_.BindBlob(++n, PackEnv(record.env));
    put_.BindText(++n, record.limits_json);
    put_.BindText(++n, record.state);
    put_.BindText(++n, record.reason);
    put_.BindNumber(++n, Micros(record.opened_at));
    put_.BindNumber(++n, Micros(record.last_call_at));
    return put_.Run();
  }

  absl::Status Remove(const std::string& sandbox_id) override {
    MutexLock hold(mu_);
    remove_.BindText(1, sandbox_id);
    return remove_.Run();
  }

  absl::StatusOr<std::vector<SessionRecord>> List() override {
    MutexLock hold(mu_);
    std::vector<SessionRecord> records;
    while (true) {
      absl::StatusOr<bool> row = list_.Step();
      if (!row.ok() || !*row) {
        list_.Reset();
        RETURN_IF_ERROR(row.status());
        return records;
      }
      records.push_back(ReadRowLocked());
    }
  }

  absl::Status Touch(const std::string& sandbox_id,
                     system_clock::time_point last_call_at) override {
    MutexLock hold(mu_);
    touch_.BindNumber(1, Micros(last_call_at));
    touch_.BindText(2, sandbox_id);
    return touch_.Run();
  }

  absl::Status PutIncident(const IncidentRow& row) override {
    MutexLock hold(mu_);
    ASSIGN_OR_RETURN(
        SqliteStatement put,
        SqliteStatement::Prepare(db_.get(), "INSERT OR REPLACE INTO incidents VALUES (?, ?, ?)"));
    put.BindText(1, row.id);
    put.BindText(2, row.state);
    put.BindText(3, row.body);
    return put.Run();
  }

  absl::StatusOr<std::vector<IncidentRow>> ListIncidents() override {
    MutexLock hold(mu_);
    ASSIGN_OR_RETURN(
        SqliteStatement list,
        SqliteStatement::Prepare(db_.get(), "SELECT id, state, body FROM incidents ORDER BY id"));
    std::vector<IncidentRow> rows;
    while (true) {
      ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) {
        return rows;
      }
      rows.push_back({.id = list.Text(0), .state = list.Text(1), .body = list.Text(2)});
    }
  }

  absl::Status PutRecordHead(uint64_t seq, const std::string& hash) override {
    MutexLock hold(mu_);
    put_head_.BindNumber(1, static_cast<int64_t>(seq));
    put_head_.BindText(2, hash);
    return put_head_.Run();
  }

  absl::StatusOr<std::pair<uint64_t, std::string>> GetRecordHead() override {
    MutexLock hold(mu_);
    ASSIGN_OR_RETURN(SqliteStatement get,
                     SqliteStatement::Prepare(db_.get(), "SELECT seq, hash FROM record_head"));
    ASSIGN_OR_RETURN(const bool row, get.Step());
    return row ? std::pair(static_cast<uint64_t>(get.Number(0)), get.Text(1))
               : std::pair(uint64_t{0}, std::string());
  }

 private:
  [[nodiscard]] SessionRecord ReadRowLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    SessionRecord record;
    int n = -1;
    record.sandbox_id = list_.Text(++n);
    record.session = list_.Text(++n);
    record.sender = list_.Text(++n);
    record.key = list_.Text(++n);
    record.tool_uid = static_cast<uint32_t>(list_.Number(++n));
    record.tool_gid = static_cast<uint32_t>(list_.Number(++n));
    record.container_id = list_.Text(++n);
    record.image = list_.Text(++n);
    record.runtime = list_.Text(++n);
    record.workspace = list_.Text(++n);
    record.access = list_.Text(++n);
    record.spec_hash = list_.Text(++n);
    record.shim_sha256 = list_.Text(++n);
    record.workspace_bound = list_.Text(++n);
    record.env = UnpackEnv(list_.Text(++n));
    record.limits_json = list_.Text(++n);
    record.state = list_.Text(++n);
    record.reason = list_.Text(++n);
    record.opened_at = FromMicros(list_.Number(++n));
    record.last_call_at = FromMicros(list_.Number(++n));
    return record;
  }

  const StateLock lock_;
  const std::string set_aside_;
  const std::string install_id_;
  Mutex mu_;
  const SqliteHandle db_;
  SqliteStatement put_ ABSL_GUARDED_BY(mu_);
  SqliteStatement remove_ ABSL_GUARDED_BY(mu_);
  SqliteStatement list_ ABSL_GUARDED_BY(mu_);
  SqliteStatement touch_ ABSL_GUARDED_BY(mu_);
  SqliteStatement put_head_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& directory) {
  RETURN_IF_ERROR(MakePrivateFolder(directory));
  ASSIGN_OR_RETURN(StateLock lock, StateLock::Take(directory));
  ASSIGN_OR_RETURN(std::string install_id, InstallId(directory));

  const std::string path = directory + "/creel.db";
  std::string set_aside;
  ASSIGN_OR_RETURN(SqliteHandle db, OpenDatabase(path));
  absl::Status sound = CheckAndMigrate(db.get());
  if (absl::IsDataLoss(sound)) {
    db.reset();
    ASSIGN_OR_RETURN(set_aside, SetAside(path));
    ASSIGN_OR_RETURN(db, OpenDatabase(path));
    sound = CheckAndMigrate(db.get());
  }
  RETURN_IF_ERROR(sound);

  auto store = std::make_unique<SqliteStore>(std::move(lock), std::move(db), std::move(set_aside),
                                             std::move(install_id));
  RETURN_IF_ERROR(store->Prepare());
  return store;
}

}  // namespace creel
