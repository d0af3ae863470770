#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/base/status.h"
#include "supervisor/egress/credentials.h"

namespace creel {

// A credential as the operator is shown it; never its value.
struct SecretView {
  std::string name;    // the service's
  std::string kind;    // header, bearer, basic or query
  std::string source;  // such as "file /etc/creel/gowa.key"
  bool revoked = false;
  // By the record: of the newest request that it was added to. Empty: there is none.
  std::string last_session{};
  std::string last_sandbox{};
  std::string last_used_at{};  // as the record writes times
  uint64_t uses = 0;
};

// The credentials that Creel adds to sandboxes' requests: which there are, who used them, and which
// are revoked. What is revoked lies in <state>/revoked-secrets, beside the database, as a database
// that is lost must not bring a credential back. Thread-safe.
class SecretDesk {
 public:
  struct Rooms {
    egress::Credentials& credentials;
    AuditLog& audit;
    std::string state_dir;
    // Ends connections that go on with a credential which was revoked. May be empty.
    std::function<void()> recheck{};
    // Runs when a value is known that was not, before it is used. May be empty.
    std::function<void()> fetched{};
  };

  // Reads what is revoked, before any credential is used. kDataLoss and others: it cannot be read,
  // and nothing may be used.
  static absl::StatusOr<std::unique_ptr<SecretDesk>> Create(Rooms rooms);
  // Its listeners go with it.
  ~SecretDesk();
  SecretDesk(const SecretDesk&) = delete;
  SecretDesk& operator=(const SecretDesk&) = delete;

  // Reads the record as a whole. Blocks.
  absl::StatusOr<std::vector<SecretView>> List() const;
  // Errors as egress::Credentials; both are told in the record, and on the disk with the return.
  absl::Status Revoke(const std::string& name);
  absl::Status Restore(const std::string& name);

 private:
  explicit SecretDesk(Rooms rooms) : rooms_(std::move(rooms)) {}

  const Rooms rooms_;
};

// The service whose credential a line of the record says was used; empty: none was.
std::string CredentialUsedBy(std::string_view event, std::string_view kind, std::string_view rule);

}  // namespace creel
