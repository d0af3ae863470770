#include "supervisor/store/policy_store.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <cstdint>
#include <functional>
#include <utility>

#include "supervisor/base/mutex.h"
#include "supervisor/store/sqlite.h"

namespace creel {
namespace {

using std::chrono::system_clock;

int64_t Micros(system_clock::time_point at) {
  return std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count();
}

system_clock::time_point FromMicros(int64_t micros) {
  return system_clock::time_point(std::chrono::microseconds(micros));
}

// A value to be bound.
struct Value {
  Value(const std::string& from) : text(&from) {}                 // NOLINT: reads as a list
  Value(system_clock::time_point from) : number(Micros(from)) {}  // NOLINT
  const std::string* text = nullptr;
  int64_t number = 0;
};

class SqlitePolicyStore final : public PolicyStore {
 public:
  explicit SqlitePolicyStore(SqliteHandle db) : db_(std::move(db)) {}

  absl::StatusOr<std::vector<TrustRecord>> TrustLevels() override {
    std::vector<TrustRecord> records;
    RETURN_IF_ERROR(ForEach("SELECT name, level, sender, since FROM trust_levels",
                            [&](const SqliteStatement& row) {
                              records.push_back({.name = row.Text(0),
                                                 .level = row.Text(1),
                                                 .sender = row.Text(2),
                                                 .since = FromMicros(row.Number(3))});
                            }));
    return records;
  }
  absl::Status Put(const TrustRecord& r) override {
    return Run("INSERT OR REPLACE INTO trust_levels VALUES (?,?,?,?)",
               {r.name, r.level, r.sender, r.since});
  }
  absl::Status RemoveTrust(const std::string& name) override {
    // In this order: senders without a level are nobody's.
    RETURN_IF_ERROR(Run("DELETE FROM trust_levels WHERE name = ?", {name}));
    return Run("DELETE FROM trust_senders WHERE name = ?", {name});
  }

  absl::StatusOr<std::vector<TrustSenderRecord>> TrustSenders() override {
    std::vector<TrustSenderRecord> records;
    RETURN_IF_ERROR(ForEach("SELECT name, sender, since FROM trust_senders ORDER BY since",
                            [&](const SqliteStatement& row) {
                              records.push_back({.name = row.Text(0),
                                                 .sender = row.Text(1),
                                                 .since = FromMicros(row.Number(2))});
                            }));
    return records;
  }
  absl::Status Put(const TrustSenderRecord& r) override {
    return Run("INSERT OR REPLACE INTO trust_senders VALUES (?,?,?)", {r.name, r.sender, r.since});
  }
  absl::Status RemoveTrustSender(const std::string& name, const std::string& sender) override {
    return Run("DELETE FROM trust_senders WHERE name = ? AND sender = ?", {name, sender});
  }

  absl::StatusOr<std::vector<PairingRequestRecord>> PairingRequests() override {
    std::vector<PairingRequestRecord> records;
    RETURN_IF_ERROR(
        ForEach("SELECT channel, account, sender, name, code, created_at, expires_at FROM "
                "pairing_requests",
                [&](const SqliteStatement& row) {
                  records.push_back({.channel = row.Text(0),
                                     .account = row.Text(1),
                                     .sender = row.Text(2),
                                     .name = row.Text(3),
                                     .code = row.Text(4),
                                     .created_at = FromMicros(row.Number(5)),
                                     .expires_at = FromMicros(row.Number(6))});
                }));
    return records;
  }
  absl::Status Put(const PairingRequestRecord& r) override {
    return Run("INSERT OR REPLACE INTO pairing_requests VALUES (?,?,?,?,?,?,?)",
               {r.channel, r.account, r.sender, r.name, r.code, r.created_at, r.expires_at});
  }
  absl::Status RemovePairingRequest(const PairingRequestRecord& r) override {
    return Run("DELETE FROM pairing_requests WHERE channel = ? AND account = ? AND sender = ?",
               {r.channel, r.account, r.sender});
  }

  absl::StatusOr<std::vector<PairingRecord>> Pairings() override {
    std::vector<PairingRecord> records;
    RETURN_IF_ERROR(ForEach("SELECT channel, sender, name, level, approved_at FROM pairings",
                            [&](const SqliteStatement& row) {
                              records.push_back({.channel = row.Text(0),
                                                 .sender = row.Text(1),
                                                 .name = row.Text(2),
                                                 .level = row.Text(3),
                                                 .approved_at = FromMicros(row.Number(4))});
                            }));
    return records;
  }
  absl::Status Put(const PairingRecord& r) override {
    return Run("INSERT OR REPLACE INTO pairings VALUES (?,?,?,?,?)",
               {r.channel, r.sender, r.name, r.level, r.approved_at});
  }
  absl::Status RemovePairing(const std::string& channel, const std::string& sender) override {
    return Run("DELETE FROM pairings WHERE channel = ? AND sender = ?", {channel, sender});
  }

  absl::StatusOr<std::vector<ApprovalRecord>> Approvals() override {
    std::vector<ApprovalRecord> records;
    RETURN_IF_ERROR(ForEach(
        "SELECT id, session, sender, level, tool, tool_call_id, rule, summary, parameters_sha256, "
        "state, created_at, expires_at FROM approvals",
        [&](const SqliteStatement& row) {
          records.push_back({.id = row.Text(0),
                             .session = row.Text(1),
                             .sender = row.Text(2),
                             .level = row.Text(3),
                             .tool = row.Text(4),
                             .tool_call_id = row.Text(5),
                             .rule = row.Text(6),
                             .summary = row.Text(7),
                             .parameters_sha256 = row.Text(8),
                             .state = row.Text(9),
                             .created_at = FromMicros(row.Number(10)),
                             .expires_at = FromMicros(row.Number(11))});
        }));
    return records;
  }
  absl::Status Put(const ApprovalRecord& r) override {
    return Run("INSERT OR REPLACE INTO approvals VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
               {r.id, r.session, r.sender, r.level, r.tool, r.tool_call_id, r.rule, r.summary,
                r.parameters_sha256, r.state, r.created_at, r.expires_at});
  }
  absl::Status RemoveApproval(const std::string& id) override {
    return Run("DELETE FROM approvals WHERE id = ?", {id});
  }

  absl::StatusOr<std::vector<ReadOnlyRecord>> ReadOnly() override {
    std::vector<ReadOnlyRecord> records;
    RETURN_IF_ERROR(ForEach("SELECT scope, name, reason, since FROM read_only",
                            [&](const SqliteStatement& row) {
                              records.push_back({.scope = row.Text(0),
                                                 .name = row.Text(1),
                                                 .reason = row.Text(2),
                                                 .since = FromMicros(row.Number(3))});
                            }));
    return records;
  }
  absl::Status Put(const ReadOnlyRecord& r) override {
    return Run("INSERT OR REPLACE INTO read_only VALUES (?,?,?,?)",
               {r.scope, r.name, r.reason, r.since});
  }
  absl::Status RemoveReadOnly(const std::string& scope, const std::string& name) override {
    return Run("DELETE FROM read_only WHERE scope = ? AND name = ?", {scope, name});
  }

 private:
  // These are rare enough to be prepared each time.
  absl::Status Run(std::string_view sql, const std::vector<Value>& values) {
    MutexLock hold(mu_);
    ASSIGN_OR_RETURN(SqliteStatement statement, SqliteStatement::Prepare(db_.get(), sql));
    int position = 0;
    for (const Value& value : values) {
      ++position;
      if (value.text != nullptr) {
        statement.BindText(position, *value.text);
      } else {
        statement.BindNumber(position, value.number);
      }
    }
    return statement.Run();
  }

  absl::Status ForEach(std::string_view sql,
                       const std::function<void(const SqliteStatement&)>& each) {
    MutexLock hold(mu_);
    ASSIGN_OR_RETURN(SqliteStatement statement, SqliteStatement::Prepare(db_.get(), sql));
    while (true) {
      ASSIGN_OR_RETURN(const bool row, statement.Step());
      if (!row) {
        return absl::OkStatus();
      }
      each(statement);
    }
  }

  Mutex mu_;
  const SqliteHandle db_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PolicyStore>> PolicyStore::Open(const std::string& directory) {
  const std::string path = directory + "/creel.db";
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, nullptr);
  SqliteHandle db(raw);
  if (code != SQLITE_OK) {
    return SqliteStatus(raw, code, fmt::format("open the database '{}'", path));
  }
  sqlite3_busy_timeout(db.get(), 5000);
  RETURN_IF_ERROR(SqliteExec(db.get(), "PRAGMA synchronous = NORMAL"));
  RETURN_IF_ERROR(SqliteExec(db.get(), "PRAGMA secure_delete = ON"));
  RETURN_IF_ERROR(SqliteExec(db.get(), "PRAGMA trusted_schema = OFF"));
  return std::make_unique<SqlitePolicyStore>(std::move(db));
}

}  // namespace creel
