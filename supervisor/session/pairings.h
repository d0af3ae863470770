#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/policy/sender.h"
#include "supervisor/store/policy_store.h"

namespace creel {

// Senders who wait with a code for the operator, and those who were let in. Thread-safe.
class Pairings {
 public:
  // `store` and `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<Pairings>> Load(PolicyStore& store, const Clock& clock);

  // The level that a sender was given; empty: none.
  [[nodiscard]] std::string LevelOf(const SenderId& sender) const;

  // Lets a sender wait. Returns the code, or nothing if there is nothing to send: it was sent
  // before and still holds, or `max_pending` others wait on this account. An error: it could not be
  // written down.
  absl::StatusOr<std::string> Request(const SenderId& sender, const std::string& account,
                                      const std::string& name, std::chrono::seconds lifetime,
                                      uint32_t max_pending);

  struct Lists {
    std::vector<PairingRequestRecord> waiting;
    std::vector<PairingRecord> approved;
  };
  [[nodiscard]] Lists List();

  // By code, else by sender. kNotFound: none such waits. kResourceExhausted: ten wrong codes within
  // a minute.
  absl::StatusOr<PairingRecord> Approve(const std::string& code, const SenderId& sender,
                                        const std::string& level);
  // Returns how many were turned down or revoked; kNotFound, kResourceExhausted as Approve.
  absl::StatusOr<uint32_t> Deny(const std::string& code, const SenderId& sender);

 private:
  Pairings(PolicyStore& store, const Clock& clock) : store_(store), clock_(clock) {}

  void DropExpiredLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Index into waiting_.
  absl::StatusOr<size_t> FindLocked(const std::string& code, const SenderId& sender)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  PolicyStore& store_;
  const Clock& clock_;
  mutable Mutex mu_;
  std::vector<PairingRequestRecord> waiting_ ABSL_GUARDED_BY(mu_);
  std::unordered_map<std::string, PairingRecord> approved_ ABSL_GUARDED_BY(mu_);  // channel:id
  std::vector<std::chrono::steady_clock::time_point> wrong_ ABSL_GUARDED_BY(mu_);
};

// A code of 8 letters and digits without 0, O, 1 and I.
std::string MakePairingCode();

}  // namespace creel
