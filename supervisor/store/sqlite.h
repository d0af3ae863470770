#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "supervisor/base/status.h"

namespace creel {

struct CloseSqlite {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
using SqliteHandle = std::unique_ptr<sqlite3, CloseSqlite>;

// One prepared statement, used again and again. Bind by position from 1, step, read by column from
// 0, reset. Not thread-safe.
class SqliteStatement {
 public:
  SqliteStatement() = default;
  static absl::StatusOr<SqliteStatement> Prepare(sqlite3* db, std::string_view sql);

  void BindText(int position, std::string_view value);
  void BindBlob(int position, std::string_view value);
  void BindNumber(int position, int64_t value);
  // True: there is a row. False: the end.
  absl::StatusOr<bool> Step();
  // Steps to the end and resets, for statements that return nothing.
  absl::Status Run();
  void Reset();
  [[nodiscard]] std::string Text(int column) const;
  [[nodiscard]] int64_t Number(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

// A Status for a failed SQLite call. Damage is kDataLoss, a full disk kResourceExhausted, a lock
// kUnavailable, others kInternal.
absl::Status SqliteStatus(sqlite3* db, int code, std::string_view what);

// Runs statements that return nothing.
absl::Status SqliteExec(sqlite3* db, const std::string& sql);

}  // namespace creel
