#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/status.h"

namespace creel {

// The lowest level that has reached a sandbox, or a session on the host.
struct TrustRecord {
  std::string name;
  std::string level;
  std::string sender;  // who brought it there; empty: a call that named nobody
  std::chrono::system_clock::time_point since;
};

// A sender who has reached a sandbox, or a session on the host.
struct TrustSenderRecord {
  std::string name;
  std::string sender;
  std::chrono::system_clock::time_point since;  // the first time
};

// A sender who waits for the operator.
struct PairingRequestRecord {
  std::string channel;
  std::string account;
  std::string sender;
  std::string name;
  std::string code;
  std::chrono::system_clock::time_point created_at;
  std::chrono::system_clock::time_point expires_at;
};

// A sender who was let in.
struct PairingRecord {
  std::string channel;
  std::string sender;
  std::string name;
  std::string level;
  std::chrono::system_clock::time_point approved_at;
};

// A tool call that the operator is asked about.
struct ApprovalRecord {
  std::string id;
  std::string session;
  std::string sender;
  std::string level;
  std::string tool;
  std::string tool_call_id;
  std::string rule;
  std::string summary;
  std::string parameters_sha256;
  std::string state;  // pending | allowed | denied | used | expired
  std::chrono::system_clock::time_point created_at;
  std::chrono::system_clock::time_point expires_at;
};

// A read-only switch that is on.
struct ReadOnlyRecord {
  std::string scope;  // all | level | session
  std::string name;
  std::string reason;
  std::chrono::system_clock::time_point since;
};

// What policy decisions rest on besides the configuration, in the database of Store. Each Put
// inserts or replaces. Thread-safe.
class PolicyStore {
 public:
  // Opens `directory`/creel.db, which Store::Open has made and brought up to date, and which must
  // stay open meanwhile.
  static absl::StatusOr<std::unique_ptr<PolicyStore>> Open(const std::string& directory);
  virtual ~PolicyStore() = default;

  virtual absl::StatusOr<std::vector<TrustRecord>> TrustLevels() = 0;
  virtual absl::Status Put(const TrustRecord& record) = 0;
  // With everybody who has reached it.
  virtual absl::Status RemoveTrust(const std::string& name) = 0;

  // The earliest first.
  virtual absl::StatusOr<std::vector<TrustSenderRecord>> TrustSenders() = 0;
  virtual absl::Status Put(const TrustSenderRecord& record) = 0;
  virtual absl::Status RemoveTrustSender(const std::string& name, const std::string& sender) = 0;

  virtual absl::StatusOr<std::vector<PairingRequestRecord>> PairingRequests() = 0;
  virtual absl::Status Put(const PairingRequestRecord& record) = 0;
  virtual absl::Status RemovePairingRequest(const PairingRequestRecord& record) = 0;

  virtual absl::StatusOr<std::vector<PairingRecord>> Pairings() = 0;
  virtual absl::Status Put(const PairingRecord& record) = 0;
  virtual absl::Status RemovePairing(const std::string& channel, const std::string& sender) = 0;

  virtual absl::StatusOr<std::vector<ApprovalRecord>> Approvals() = 0;
  virtual absl::Status Put(const ApprovalRecord& record) = 0;
  virtual absl::Status RemoveApproval(const std::string& id) = 0;

  virtual absl::StatusOr<std::vector<ReadOnlyRecord>> ReadOnly() = 0;
  virtual absl::Status Put(const ReadOnlyRecord& record) = 0;
  virtual absl::Status RemoveReadOnly(const std::string& scope, const std::string& name) = 0;
};

}  // namespace creel
