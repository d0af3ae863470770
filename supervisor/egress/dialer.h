#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/event_loop.h"
#include "supervisor/base/status.h"
#include "supervisor/egress/resolver.h"
#include "supervisor/egress/stream.h"

namespace creel::egress {

// Where a connection is to lead.
struct Destination {
  std::string unix_path{};  // instead of all else
  std::string host{};       // a name, or an address where `trusted`
  uint16_t port = 0;
  bool tls = false;
  std::string ca{};  // as TlsClient::Make
  // The operator named this very place: any address will do. Else every address that the name has
  // must be public, or in one of `networks`.
  bool trusted = false;
  std::vector<std::string> networks{};
};

// Makes connections to upstreams, without blocking. For the loop's thread alone.
class Dialer {
 public:
  // All must outlive it; `loop` and `tls` also what it began.
  Dialer(EventLoop& loop, Resolver& resolver, TlsClient& tls)
      : loop_(loop), resolver_(resolver), tls_(tls) {}

  // Resolves, checks, connects to an address that was checked, and shakes hands. `done` is called
  // exactly once, possibly at once, unless the returned object is destroyed before.
  //   kPermissionDenied   an address of the name may not be reached; nothing was sent
  //   kNotFound           the name has no address
  //   kDeadlineExceeded, kUnavailable  it did not answer, or its certificate is not good
  using Done = std::function<void(absl::StatusOr<std::unique_ptr<Stream>>)>;
  std::shared_ptr<void> Dial(Destination to, Deadline deadline, Done done);

 private:
  class Attempt;

  EventLoop& loop_;
  Resolver& resolver_;
  TlsClient& tls_;
};

// OK if all of `addresses` may be reached for `to`. kPermissionDenied names the first that may not.
absl::Status CheckAddresses(const std::vector<IpAddress>& addresses, const Destination& to);

}  // namespace creel::egress
