#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/status.h"

namespace creel {

// One session with the sandbox behind it, as it must survive a restart. Plain text and numbers: the
// store knows nothing of the rooms below it.
struct SessionRecord {
  std::string session;
  std::string sender;
  std::string sandbox_id;
  std::string key;  // the shim's, 32 bytes
  uint32_t tool_uid = 0;
  uint32_t tool_gid = 0;
  std::string container_id;
  std::string image;
  std::string runtime;
  std::string workspace;
  std::string access;  // none | ro | rw
  std::string spec_hash;
  std::string shim_sha256;
  std::string workspace_bound;
  std::map<std::string, std::string> env;
  std::string limits_json;
  std::string state;   // pooled (of no session yet) | opening | running | frozen | closing
  std::string reason;  // why it is frozen
  std::chrono::system_clock::time_point opened_at;
  std::chrono::system_clock::time_point last_call_at;
};

// What must survive a restart, in SQLite (WAL). Thread-safe; statements are prepared once.
class Store {
 public:
  // Opens or makes `directory`/creel.db, mode 0600, and brings its schema up to date. A database
  // that is damaged is set aside (`creel.db.damaged-TIME`) and a new one made; `set_aside` then
  // holds its path. kFailedPrecondition: made by a newer Creel, or another supervisor holds the
  // lock.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& directory);
  virtual ~Store() = default;

  [[nodiscard]] virtual const std::string& set_aside() const = 0;
  // A random id made once; the label by which containers are known as this install's.
  [[nodiscard]] virtual const std::string& install_id() const = 0;

  // Inserts or replaces by sandbox_id.
  virtual absl::Status Put(const SessionRecord& record) = 0;
  virtual absl::Status Remove(const std::string& sandbox_id) = 0;
  virtual absl::StatusOr<std::vector<SessionRecord>> List() = 0;
  virtual absl::Status Touch(const std::string& sandbox_id,
                             std::chrono::system_clock::time_point last_call_at) = 0;

  // Incidents: by id, with their state in plain and the rest as the incident room writes it.
  struct IncidentRow {
    std::string id;
    std::string state;
    std::string body;
  };
  virtual absl::Status PutIncident(const IncidentRow& row) = 0;
  // In the order of their ids.
  virtual absl::StatusOr<std::vector<IncidentRow>> ListIncidents() = 0;

  // The newest record of the audit log that was known to be on the disk; seq 0: none was.
  virtual absl::Status PutRecordHead(uint64_t seq, const std::string& hash) = 0;
  virtual absl::StatusOr<std::pair<uint64_t, std::string>> GetRecordHead() = 0;
};

}  // namespace creel
