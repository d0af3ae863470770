#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"

namespace creel::web {

// Who may use the page. The operator's door makes a token; a browser changes it, once, for a login:
// a cookie, and a key that the page keeps for itself. A request needs both, as browsers send
// cookies to every port of a host, so that other servers on this host may see the cookie. Logins
// outlive the supervisor, by their hashes in a file. Thread-safe.
class Logins {
 public:
  struct Options {
    std::string file;  // where logins are kept; empty: in memory only
    std::chrono::seconds token_lifetime{300};
    std::chrono::seconds login_lifetime{12 * 3600};
  };
  struct Token {
    std::string text;
    std::chrono::system_clock::time_point expires_at;
  };
  struct Login {
    std::string cookie;
    std::string key;
    std::string name;  // for the record; tells nothing of the others
  };

  // A file that cannot be read is as good as none: whoever was logged in logs in again.
  Logins(Options options, const Clock& clock);

  // kResourceExhausted: sixteen wait already.
  absl::StatusOr<Token> MakeToken();
  // Nothing: it is none of ours, was used before, or has expired.
  std::optional<Login> Redeem(const std::string& token);
  // The login's name, if both belong to one that stands.
  [[nodiscard]] std::optional<std::string> Check(const std::string& cookie, const std::string& key);
  void End(const std::string& cookie);
  // Tokens that wait as well.
  void EndAll();
  [[nodiscard]] std::chrono::seconds login_lifetime() const { return options_.login_lifetime; }

 private:
  struct Entry {
    std::string key_hash;
    std::string name;
    std::chrono::system_clock::time_point expires_at;
  };

  void Load();
  void SaveLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ExpireLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  const Clock& clock_;
  Mutex mu_;
  // By the hash of the token, of the cookie.
  std::map<std::string, std::chrono::system_clock::time_point> tokens_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Entry> logins_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel::web
