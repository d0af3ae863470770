#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/job_threads.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/config/egress_config.h"
#include "supervisor/egress/masker.h"

namespace creel::egress {

// A credential's value, with all that a reply must not show.
struct Secret {
  std::string value{};
  // The value of the header that carries it; empty for a query parameter.
  std::string header{};
  // The value and what is made of it, in the forms in which it may be echoed.
  std::vector<std::string> forms{};
  // The same, for a Masker.
  std::shared_ptr<const SecretTree> tree{};
};

// What the operator is shown of a credential; never its value.
struct CredentialInfo {
  std::string service;
  std::string kind;    // header, bearer, basic or query
  std::string source;  // such as "file /etc/creel/gowa.key"
  bool revoked = false;
};

// The secrets that services add to requests, fetched from where the configuration says: a file, an
// environment variable of creeld's, or the output of a command. Thread-safe; each service's is
// fetched on a thread of its own, so that one that is slow to be had holds up no other.
class Credentials {
 public:
  using Done = std::function<void(absl::StatusOr<std::shared_ptr<const Secret>>)>;

  Credentials();
  ~Credentials();
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  // Replaces the services; what has not changed keeps its value.
  void Configure(const std::vector<EgressService>& services);
  // Those that are revoked from the start, by service. Before the first Get.
  void SetRevoked(std::set<std::string> services);
  // What follows changes: `revoked` writes down which services are
  // revoked, before a change counts as made; `fetched` is told that a value is known that was not,
  // or is another one, on a fetching thread, one at a time.
  struct Listener {
    std::function<absl::Status(const std::set<std::string>&)> revoked{};
    std::function<void()> fetched{};
  };
  // Returns when the one before is no longer in use.
  void SetListener(Listener listener);
  // Has every value fetched that is not known yet, so that it can be masked before it is first
  // used. Does not wait.
  void FetchAll();
  // Calls `done` exactly once: at once while the value is fresh, else on a fetching thread.
  //   kPermissionDenied    it was revoked
  //   kFailedPrecondition  it cannot be had now; the message says why, and holds nothing of it
  void Get(const std::string& service, Done done);
  // Stops adding it from the return on. kNotFound: no such service, or it has none. Another error:
  // it is revoked, and could not be written down.
  absl::Status Revoke(const std::string& service);
  // Adds it again, fetched anew. kNotFound: it is not revoked. Another error: it could not be
  // written down, and stays revoked.
  absl::Status Restore(const std::string& service);
  [[nodiscard]] bool IsRevoked(const std::string& service) const;
  [[nodiscard]] std::vector<CredentialInfo> List() const;
  // Every form of every value that was fetched so far, for whoever masks text.
  [[nodiscard]] std::vector<std::string> Forms() const;
  // The same, each with its service.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> NamedForms() const;

 private:
  struct Entry {
    EgressCredential credential;
    std::shared_ptr<const Secret> secret;
    std::chrono::steady_clock::time_point fetched;
    std::vector<Done> waiting;
  };

  // Has the value fetched, unless it is being. False: no thread can be had.
  bool FetchLocked(const std::string& service) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Fetch(const std::string& service);
  // What was fetched for `credential` arrives. False: another one is wanted by now.
  bool Arrived(const std::string& service, const EgressCredential& credential,
               const absl::StatusOr<std::shared_ptr<const Secret>>& secret);

  // One change of what is revoked at a time; a request is not held up by the disk.
  Mutex change_mu_ ABSL_ACQUIRED_BEFORE(mu_);
  std::function<absl::Status(const std::set<std::string>&)> write_ ABSL_GUARDED_BY(change_mu_);
  // Held while it is called.
  Mutex told_mu_ ABSL_ACQUIRED_BEFORE(mu_);
  std::function<void()> fetched_ ABSL_GUARDED_BY(told_mu_);
  mutable Mutex mu_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::set<std::string> revoked_ ABSL_GUARDED_BY(mu_);
  // Services whose value is being fetched, or about to be; whoever waits is answered by that.
  std::set<std::string> fetching_ ABSL_GUARDED_BY(mu_);
  // Those of them that were restored meanwhile, so that what comes may be what was revoked.
  std::set<std::string> fetch_again_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  JobThreads jobs_;  // last: they use the others
};

// Fetches a value now. Blocks, a command for at most ten seconds.
absl::StatusOr<Secret> FetchSecret(const EgressCredential& credential);

}  // namespace creel::egress
