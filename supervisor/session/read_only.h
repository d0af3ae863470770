#pragma once

#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/store/policy_store.h"

namespace creel {

// Whom a read-only switch is for.
struct ReadOnlyScope {
  enum class Kind { kAll, kLevel, kSession };
  Kind kind = Kind::kAll;
  std::string name{};  // of the level or session
};

// The read-only switches that the operator has set. They survive a restart. Thread-safe.
class ReadOnlySwitches {
 public:
  // `store` and `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<ReadOnlySwitches>> Load(PolicyStore& store,
                                                                const Clock& clock);
  // Switched on it counts from here on, even if an error tells that it could not be written down
  // and a restart would forget it. Switched off it counts only if it was written down.
  absl::Status Set(const ReadOnlyScope& scope, bool on, const std::string& reason);
  [[nodiscard]] std::vector<ReadOnlyRecord> List() const;

 private:
  ReadOnlySwitches(PolicyStore& store, const Clock& clock) : store_(store), clock_(clock) {}

  PolicyStore& store_;
  const Clock& clock_;
  mutable Mutex mu_;
  std::vector<ReadOnlyRecord> on_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
