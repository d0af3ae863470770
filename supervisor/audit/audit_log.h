#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "supervisor/audit/event.h"
#include "supervisor/audit/signing_key.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"

namespace creel {

// The newest record: what another place than the files should know, as files alone cannot show
// that their end is gone.
struct AuditHead {
  uint64_t seq = 0;
  std::string hash;
  bool operator==(const AuditHead&) const = default;
};

// The append-only record: chained lines in one file a day, with signed checkpoints. See
// docs/audit.md. A line is with the kernel when Append returns, so that it outlives this process;
// the disk follows by a timer, or at once where that is asked for. Thread-safe.
class AuditLog {
 public:
  struct Options {
    std::string directory;  // made with mode 0700
    std::string install_id;
    // A file is ended before it grows beyond this.
    uint64_t max_file_bytes = 64u << 20;
    // Files whose records are all older go; the newest never does.
    std::chrono::hours keep{90 * 24};
    std::chrono::milliseconds sync_every{500};
    // A checkpoint follows after so many records, or so long after the first without one.
    uint64_t checkpoint_records = 1000;
    std::chrono::seconds checkpoint_every{60};
    // What the store has; nothing: it has none.
    std::optional<AuditHead> known_head{};
    // Keeps the head elsewhere, once the records up to it are on the disk. May be empty.
    std::function<void(const AuditHead&)> save_head{};
    // Told of each checkpoint's line, to keep it outside of this host. May be empty.
    std::function<void(const std::string&)> anchor{};
  };

  // Goes on with the record in the folder, or begins one. What a crash left half written is set
  // aside and told in the record, as is an end that is gone.
  //   kFailedPrecondition  the signing key cannot be used
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(Options options, const Clock& clock);
  // Writes a checkpoint, and all to the disk.
  virtual ~AuditLog() = default;

  // Writes an event before its effect. On failure nothing was written and the effect must not come
  // to pass: kResourceExhausted where there is no room, else kUnavailable. Writing goes on by
  // itself as soon as it can, and the record then tells of the gap.
  virtual absl::Status Append(const AuditEvent& event) = 0;
  // As Append; on success it is on the disk too.
  virtual absl::Status AppendDurable(const AuditEvent& event) = 0;
  // Writes an event whose effect has come to pass. If it cannot be written now it is kept in
  // memory, in its order, and Append refuses until it has been.
  virtual void Keep(const AuditEvent& event) = 0;

  // Values that never appear in the record, by name.
  virtual void SetSecrets(const std::vector<std::pair<std::string, std::string>>& secrets) = 0;
  // A text as the record has it now: without those values.
  [[nodiscard]] virtual std::string Masked(std::string_view text) const = 0;
  // The names of those whose value is in a text.
  [[nodiscard]] virtual std::set<std::string> SecretsIn(std::string_view text) const = 0;

  // OK, or why nothing can be written now.
  [[nodiscard]] virtual absl::Status Health() const = 0;
  [[nodiscard]] virtual AuditHead head() const = 0;
  // Waits until there is a record after `seq`; false if none came by `deadline`.
  [[nodiscard]] virtual bool WaitBeyond(uint64_t seq, Deadline deadline) = 0;
  // All to the disk, and the head to the store.
  virtual absl::Status Sync() = 0;

  [[nodiscard]] virtual const std::string& directory() const = 0;
  [[nodiscard]] virtual const SigningKey& key() const = 0;
  // What was found at the start that an operator should know; empty if all was well.
  [[nodiscard]] virtual const std::vector<std::string>& findings() const = 0;
};

// What a checkpoint's signature is made over: the place of the checkpoint and all before it.
std::string CheckpointMessage(uint64_t seq, std::string_view prev);

}  // namespace creel
