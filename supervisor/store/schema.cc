#include "supervisor/store/schema.h"

#include <fmt/format.h>

#include <array>

#include "supervisor/store/sqlite.h"

namespace creel {
namespace {

// Step N takes schema N to N + 1. A step that has been released is never changed.
constexpr std::array kSteps{
    R"sql(
      CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE sessions (
        sandbox_id TEXT PRIMARY KEY,
        session TEXT NOT NULL,
        sender TEXT NOT NULL,
        key BLOB NOT NULL,
        tool_uid INTEGER NOT NULL,
        tool_gid INTEGER NOT NULL,
        container_id TEXT NOT NULL,
        image TEXT NOT NULL,
        runtime TEXT NOT NULL,
        workspace TEXT NOT NULL,
        access TEXT NOT NULL CHECK (access IN ('none', 'ro', 'rw')),
        spec_hash TEXT NOT NULL,
        shim_sha256 TEXT NOT NULL,
        workspace_bound TEXT NOT NULL,
        env BLOB NOT NULL,
        limits TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('opening', 'running', 'frozen', 'closing')),
        reason TEXT NOT NULL,
        opened_at INTEGER NOT NULL,
        last_call_at INTEGER NOT NULL
      ) WITHOUT ROWID;
    )sql",
    // What policy decisions rest on besides the configuration. Times are microseconds since 1970.
    R"sql(
      CREATE TABLE trust_levels (
        name TEXT PRIMARY KEY,
        level TEXT NOT NULL,
        sender TEXT NOT NULL,
        since INTEGER NOT NULL
      ) WITHOUT ROWID;
      CREATE TABLE pairing_requests (
        channel TEXT NOT NULL,
        account TEXT NOT NULL,
        sender TEXT NOT NULL,
        name TEXT NOT NULL,
        code TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (channel, account, sender)
      ) WITHOUT ROWID;
      CREATE TABLE pairings (
        channel TEXT NOT NULL,
        sender TEXT NOT NULL,
        name TEXT NOT NULL,
        level TEXT NOT NULL,
        approved_at INTEGER NOT NULL,
        PRIMARY KEY (channel, sender)
      ) WITHOUT ROWID;
      CREATE TABLE approvals (
        id TEXT PRIMARY KEY,
        session TEXT NOT NULL,
        sender TEXT NOT NULL,
        level TEXT NOT NULL,
        tool TEXT NOT NULL,
        tool_call_id TEXT NOT NULL,
        rule TEXT NOT NULL,
        summary TEXT NOT NULL,
        parameters_sha256 TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('pending', 'allowed', 'denied', 'used', 'expired')),
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
      ) WITHOUT ROWID;
      CREATE TABLE read_only (
        scope TEXT NOT NULL CHECK (scope IN ('all', 'level', 'session')),
        name TEXT NOT NULL,
        reason TEXT NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (scope, name)
      ) WITHOUT ROWID;
    )sql",
    // Incidents, and the newest record as it was known here.
    R"sql(
      CREATE TABLE incidents (
        id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        body TEXT NOT NULL
      ) WITHOUT ROWID;
      CREATE TABLE record_head (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        seq INTEGER NOT NULL,
        hash TEXT NOT NULL
      );
    )sql",
    // Containers that wait for a session have a state of their own, `pooled`.
    R"sql(
      CREATE TABLE sessions_4 (
        sandbox_id TEXT PRIMARY KEY,
        session TEXT NOT NULL,
        sender TEXT NOT NULL,
        key BLOB NOT NULL,
        tool_uid INTEGER NOT NULL,
        tool_gid INTEGER NOT NULL,
        container_id TEXT NOT NULL,
        image TEXT NOT NULL,
        runtime TEXT NOT NULL,
        workspace TEXT NOT NULL,
        access TEXT NOT NULL CHECK (access IN ('none', 'ro', 'rw')),
        spec_hash TEXT NOT NULL,
        shim_sha256 TEXT NOT NULL,
        workspace_bound TEXT NOT NULL,
        env BLOB NOT NULL,
        limits TEXT NOT NULL,
        state TEXT NOT NULL
          CHECK (state IN ('pooled', 'opening', 'running', 'frozen', 'closing')),
        reason TEXT NOT NULL,
        opened_at INTEGER NOT NULL,
        last_call_at INTEGER NOT NULL
      ) WITHOUT ROWID;
      INSERT INTO sessions_4 SELECT sandbox_id, session, sender, key, tool_uid, tool_gid,
        container_id, image, runtime, workspace, access, spec_hash, shim_sha256, workspace_bound,
        env, limits, state, reason, opened_at, last_call_at FROM sessions;
      DROP TABLE sessions;
      ALTER TABLE sessions_4 RENAME TO sessions;
    )sql",
    // Everybody who has reached a sandbox, not only who brought it to its level.
    R"sql(
      CREATE TABLE trust_senders (
        name TEXT NOT NULL,
        sender TEXT NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (name, sender)
      ) WITHOUT ROWID;
      INSERT INTO trust_senders SELECT name, sender, since FROM trust_levels WHERE sender <> '';
    )sql",
};

absl::StatusOr<int> PresentSchema(sqlite3* db) {
  RETURN_IF_ERROR(SqliteExec(db,
                             "CREATE TABLE IF NOT EXISTS migrations "
                             "(version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)"));
  ASSIGN_OR_RETURN(
      SqliteStatement newest,
      SqliteStatement::Prepare(db, "SELECT coalesce(max(version), 0) FROM migrations"));
  ASSIGN_OR_RETURN(const bool row, newest.Step());
  return row ? static_cast<int>(newest.Number(0)) : 0;
}

}  // namespace

int NewestSchema() { return static_cast<int>(kSteps.size()); }

absl::Status Migrate(sqlite3* db, int target) {
  ASSIGN_OR_RETURN(int version, PresentSchema(db));
  if (version > NewestSchema()) {
    return absl::FailedPreconditionError(
        fmt::format("the database has schema {}, made by a newer Creel; this one knows {}. Install "
                    "the newer one again, or move the database away",
                    version, NewestSchema()));
  }
  for (; version < target; ++version) {
    const std::string sql =
        fmt::format("BEGIN IMMEDIATE; {} INSERT INTO migrations VALUES ({}, unixepoch()); COMMIT;",
                    kSteps[static_cast<size_t>(version)], version + 1);
    if (absl::Status status = SqliteExec(db, sql); !status.ok()) {
      sqlite3_exec(db, "ROLLBACK", nullptr, nullptr, nullptr);
      return Annotate(absl::Status(status.code(), sqlite3_errmsg(db)),
                      fmt::format("bring the database to schema {}", version + 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace creel
