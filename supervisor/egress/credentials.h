#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/config/egress_config.h"

namespace creel::egress {

// A credential's value, with all that a reply must not show.
struct Secret {
  std::string value{};
  // The value of the header that carries it; empty for a query parameter.
  std::string header{};
  // For a Masker: the value and what is made of it, in the forms in which it may be echoed.
  std::vector<std::string> forms{};
};

// What the operator is shown of a credential; never its value.
struct CredentialInfo {
  std::string service;
  std::string kind;    // header, bearer, basic or query
  std::string source;  // such as "file /etc/creel/gowa.key"
  bool revoked = false;
};

// The secrets that services add to requests, fetched from where the configuration says: a file, an
// environment variable of creeld's, or the output of a command. Thread-safe; fetching happens on a
// thread of its own.
class Credentials {
 public:
  using Done = std::function<void(absl::StatusOr<std::shared_ptr<const Secret>>)>;

  Credentials();
  ~Credentials();
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  // Replaces the services; what has not changed keeps its value.
  void Configure(const std::vector<EgressService>& services);
  // Calls `done` exactly once: at once while the value is fresh, else on the fetching thread.
  //   kPermissionDenied    it was revoked
  //   kFailedPrecondition  it cannot be had now; the message says why, and holds nothing of it
  void Get(const std::string& service, Done done);
  // Stops adding it from the next request on. kNotFound: no such service, or it has none.
  absl::Status Revoke(const std::string& service);
  absl::Status Restore(const std::string& service);
  [[nodiscard]] std::vector<CredentialInfo> List() const;
  // Every form of every value that was fetched so far, for whoever masks text.
  [[nodiscard]] std::vector<std::string> Forms() const;

 private:
  struct Entry {
    EgressCredential credential;
    std::shared_ptr<const Secret> secret;
    std::chrono::steady_clock::time_point fetched;
    std::vector<Done> waiting;
  };

  void Work();

  mutable Mutex mu_;
  CondVar changed_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::set<std::string> revoked_ ABSL_GUARDED_BY(mu_);
  std::deque<std::string> queue_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// Fetches a value now. Blocks, a command for at most ten seconds.
absl::StatusOr<Secret> FetchSecret(const EgressCredential& credential);

}  // namespace creel::egress
