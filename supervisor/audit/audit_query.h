#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/record_files.h"
#include "supervisor/base/status.h"

namespace creel {

// Which records are wanted: those that fit everything that is set.
struct AuditQuery {
  std::string session{};
  std::string sender{};
  std::string sandbox{};
  std::string tool{};
  std::string verdict{};   // allow, deny or ask
  std::string incident{};  // its number
  std::string event{};     // a kind, or the beginning of some with a dot at its end: `call.`
  std::string since{};     // a time as the record has it, or the beginning of one
  std::string until{};     // not included
  uint64_t after_seq = 0;
  // Any of these instead of `session`: what concerns one incident.
  std::vector<std::string> any_session{};
  std::vector<std::string> any_sandbox{};

  // What the record has instead of a value of the above that holds a known secret; what it has as
  // it stands, from before the secret was known, fits too.
  std::map<std::string, std::string, std::less<>> masked{};

  // Fills `masked` in.
  void FindMasked(const AuditLog& log);
  [[nodiscard]] bool Fits(std::string_view line) const;

 private:
  [[nodiscard]] bool Has(std::string_view line, std::string_view key,
                         const std::string& value) const;
};

// Reads the record from its oldest line on, and what is written meanwhile. Lines are taken as they
// stand: this looks for records and does not judge them. Not thread-safe.
class AuditReader {
 public:
  AuditReader(std::string directory, AuditQuery query)
      : directory_(std::move(directory)), query_(std::move(query)) {}

  // The next line that fits, without its end, until the next call; nothing at the present end, from
  // where a later call goes on.
  absl::StatusOr<std::optional<std::string_view>> Next();

 private:
  absl::Status OpenNext();

  const std::string directory_;
  const AuditQuery query_;
  std::optional<RecordFile> file_;
  std::optional<LineReader> reader_;
  bool newest_ = false;  // no later file was there when this one was opened
};

// The newest `limit` lines that fit, oldest first.
absl::StatusOr<std::vector<std::string>> NewestRecords(const std::string& directory,
                                                       const AuditQuery& query, size_t limit);

}  // namespace creel
