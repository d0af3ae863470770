#include "supervisor/store/sqlite.h"

#include <fmt/format.h>

namespace creel {

absl::Status SqliteStatus(sqlite3* db, int code, std::string_view what) {
  const std::string text =
      fmt::format("{}: {}", what, db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code));
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(text);
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return absl::ResourceExhaustedError(text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(text);
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
      return absl::PermissionDeniedError(text);
    default:
      return absl::InternalError(text);
  }
}

absl::Status SqliteExec(sqlite3* db, const std::string& sql) {
  const int code = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus()
                           : SqliteStatus(db, code, fmt::format("the database refused '{}'", sql));
}

absl::StatusOr<SqliteStatement> SqliteStatement::Prepare(sqlite3* db, std::string_view sql) {
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v3(db, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  SqliteStatement statement;
  statement.statement_.reset(raw);
  if (code != SQLITE_OK) {
    return SqliteStatus(db, code, fmt::format("prepare '{}'", sql));
  }
  return statement;
}

void SqliteStatement::BindText(int position, std::string_view value) {
  sqlite3_bind_text64(statement_.get(), position, value.data() == nullptr ? "" : value.data(),
                      value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

void SqliteStatement::BindBlob(int position, std::string_view value) {
  sqlite3_bind_blob64(statement_.get(), position, value.data() == nullptr ? "" : value.data(),
                      value.size(), SQLITE_TRANSIENT);
}

void SqliteStatement::BindNumber(int position, int64_t value) {
  sqlite3_bind_int64(statement_.get(), position, value);
}

absl::StatusOr<bool> SqliteStatement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW || code == SQLITE_DONE) {
    return code == SQLITE_ROW;
  }
  sqlite3* const db = sqlite3_db_handle(statement_.get());
  const absl::Status status =
      SqliteStatus(db, code, fmt::format("run '{}'", sqlite3_sql(statement_.get())));
  sqlite3_reset(statement_.get());
  return status;
}

absl::Status SqliteStatement::Run() {
  absl::StatusOr<bool> row = true;
  while (row.ok() && *row) {
    row = Step();
  }
  Reset();
  return row.status();
}

void SqliteStatement::Reset() {
  sqlite3_reset(statement_.get());
  // What was bound may be a key; it is not kept.
  sqlite3_clear_bindings(statement_.get());
}

std::string SqliteStatement::Text(int column) const {
  // The bytes are asked for first: the conversion that this may need changes their number.
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_.get(), column));
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return data == nullptr ? std::string() : std::string(data, static_cast<size_t>(size));
}

int64_t SqliteStatement::Number(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

}  // namespace creel
