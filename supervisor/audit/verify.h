#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/base/status.h"

namespace creel {

struct VerifyOptions {
  // Raw public keys that checkpoints may be signed with. Empty: signatures are not checked, and
  // the report says so.
  std::vector<std::string> public_keys{};
  // What another place knows to be the newest record. Nothing: an end that is gone does not show,
  // unless the record tells of it itself.
  std::optional<AuditHead> head{};
};

// What was found.
struct VerifyReport {
  bool sound = false;
  uint64_t records = 0;
  uint64_t first_seq = 0;
  uint64_t last_seq = 0;
  std::string last_hash;
  uint64_t checkpoints = 0;
  // Records after it are chained, but no signature vouches for them yet.
  uint64_t last_checkpoint = 0;
  // Of the first record that is not as it was written, where it stood or should stand; 0 if sound.
  uint64_t bad_seq = 0;
  std::string file;
  uint64_t line = 0;
  std::string problem;             // what is wrong with it, as a sentence
  std::vector<std::string> notes;  // what is as it may be, but worth knowing
};

// Reads the record in a folder, or in one file that was exported, from its first line to its last,
// and stops at the first that was changed, dropped, inserted, moved or cut off. A Status is
// returned only where it cannot be read.
absl::StatusOr<VerifyReport> VerifyRecord(const std::string& path, const VerifyOptions& options);

}  // namespace creel
