#pragma once

#include <optional>
#include <string>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/event.h"
#include "supervisor/base/status.h"

namespace creel {

// Where a record that is there goes on.
struct RecordStart {
  uint64_t seq = 0;  // the last record; 0: there is none
  std::string hash;
  std::string file;  // path of the file to go on with; empty: begin one
  uint64_t file_first_seq = 0;
  std::vector<AuditEvent> events;     // to be written first
  std::vector<std::string> findings;  // the same for people
};

// Looks for the last whole record. What stands after it is moved into a file of its own
// (`torn-…`), as evidence: bytes without an end of line are what a crash leaves, whole lines that
// are no records are damage. An end before `known_head` is told.
absl::StatusOr<RecordStart> FindStart(const std::string& directory,
                                      const std::optional<AuditHead>& known_head);

struct LastLine {
  uint64_t seq = 0;
  std::string hash;
  uint64_t end = 0;  // of the line, in bytes from the beginning of the file
};
// The last line of a file whose own hash fits. kNotFound: there is none.
absl::StatusOr<LastLine> FindLastLine(const std::string& path);

}  // namespace creel
