#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/config/egress_config.h"
#include "supervisor/egress/credentials.h"
#include "supervisor/egress/record.h"
#include "supervisor/egress/rules.h"

namespace creel::egress {

// Where a sandbox's connections come in, and whose they must be.
struct DoorOptions {
  std::string directory{};  // egress.sock is made in it
  std::string sandbox{};    // the id, for the facts and the record
  mode_t socket_mode = 0600;
  std::optional<uid_t> socket_owner{};
  // Of each peer; unset: not to be seen here.
  std::optional<uid_t> peer_uid{};
  // The container's first process, or 0 while that is not known.
  std::function<int()> peer_pid{};
};

// The only way out of the sandboxes: an HTTP and SOCKS5 proxy on a socket for each, which carries
// out what the rules allow and nothing else. One thread serves all of them. Thread-safe.
class Proxy {
 public:
  struct Options {
    EgressConfig config;
    // Called for every request and tunnel on the proxy's thread, before anything of it goes out and
    // when it has ended; must not block. What it refuses to write down is refused.
    Recorder recorder{};
    // Problems that are the operator's to solve, as sentences; same thread.
    std::function<void(const std::string&)> problem{};
  };

  // kInvalidArgument: a resolver's address is not one.
  static absl::StatusOr<std::unique_ptr<Proxy>> Start(Options options);
  // Ends every connection. Doors must be closed before.
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  // Who is behind a sandbox's id, asked for each request on the proxy's thread; may take locks that
  // no caller of this class holds. Null: strangers all. Returns when the one before is no longer
  // in use.
  using Facts = std::function<Asker(const std::string& sandbox)>;
  void SetFacts(Facts facts);

  // Listens for a sandbox until the returned object is destroyed, which ends its connections
  // shortly after and does not wait. Errors as ListenUnix.
  absl::StatusOr<std::shared_ptr<void>> Open(DoorOptions options);

  // Another configuration counts from now on: what it no longer allows is cut. On an error nothing
  // changes.
  absl::Status Reload(const EgressConfig& config);
  // The facts of a sandbox, or of all (empty), may have changed. Does not wait.
  void Recheck(const std::string& sandbox);
  // Ends everything of a sandbox, or of all (empty), and refuses what comes, until Restore.
  // Returns when no connection is left.
  void Cut(const std::string& sandbox, const std::string& reason);
  void Restore(const std::string& sandbox);

  // The last records, oldest first, at most `most`. Empty `sandbox`: of all.
  [[nodiscard]] std::vector<Record> Log(const std::string& sandbox, size_t most) const;
  // What the rules say to a made-up request; `url` is http://…, https://… or host:port.
  // kInvalidArgument: it is none of these.
  [[nodiscard]] absl::StatusOr<Verdict> Explain(const Asker& asker, const std::string& method,
                                                const std::string& url) const;
  // Sends a real request as if from the sandbox, and returns the head and some of the body of what
  // comes back, or the outcome of a tunnel's handshake. Blocks. Errors as Explain;
  // kDeadlineExceeded.
  absl::StatusOr<std::string> Try(const Asker& asker, const std::string& method,
                                  const std::string& url, Deadline deadline);
  [[nodiscard]] size_t connections() const;

  Credentials& credentials();

 private:
  class Impl;
  explicit Proxy(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace creel::egress
