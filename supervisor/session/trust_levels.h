#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/policy/levels.h"
#include "supervisor/store/policy_store.h"

namespace creel {

// The lowest trust level that ever reached each sandbox, by the name that sessions share it under
// (Placement::sandbox_name). It only falls until the sandbox is closed, and survives a restart.
// Thread-safe.
class TrustLevels {
 public:
  using Listener = std::function<void(const std::string& name, const std::string& level)>;
  // Of a sandbox this many senders are remembered, those who reached it last, and who brought it to
  // its level.
  static constexpr size_t kMaxSenders = 64;
  struct Reached {
    std::string name;
    std::string level;
    std::vector<std::string> senders;
  };

  // `store` and `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<TrustLevels>> Load(PolicyStore& store, const Clock& clock);

  // Empty: nobody has reached it.
  [[nodiscard]] std::string Kept(const std::string& name) const;
  // Every sandbox that somebody has reached, with them.
  [[nodiscard]] std::vector<Reached> All() const;
  // `level` reaches the sandbox through `sender` (empty: nobody is named), who is written down,
  // too: if it is lower than what is kept, it is written down and the listeners are told, before
  // this returns. An error means that it could not be written, and that what it was asked for must
  // not go on. kResourceExhausted: too many names are kept.
  absl::Status Reach(const std::string& name, const std::string& level, const std::string& sender,
                     const Levels& order);
  // The sandbox is gone. kNotFound: nothing is kept of it.
  absl::Status Forget(const std::string& name);
  // Told of every fall, on the thread of the call that caused it.
  void OnFall(Listener listener);

 private:
  TrustLevels(PolicyStore& store, const Clock& clock) : store_(store), clock_(clock) {}

  struct Entry {
    std::string level;
    std::string lowest;                // who brought it there; empty: nobody was named
    std::vector<std::string> senders;  // who reached it last stands last
  };

  absl::Status RememberLocked(const std::string& name, const std::string& sender, Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  PolicyStore& store_;
  const Clock& clock_;
  // Held while it is written too, so that a fall cannot be overtaken by a rise.
  mutable Mutex mu_;
  std::unordered_map<std::string, Entry> levels_ ABSL_GUARDED_BY(mu_);
  std::vector<Listener> listeners_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
