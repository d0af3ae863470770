#pragma once

#include <optional>
#include <string>

#include "creel/shim/v1/shim.pb.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"

namespace creel::shim {

// Who this shim is: the key that the first supervisor gave it, and with it what the sandbox is. Both
// are taken once and never change. Thread-safe.
class Identity {
 public:
  // Answers a Hello. The first hands over the key and the setup.
  //   kInvalidArgument     nonce or key is not 32 bytes
  //   kFailedPrecondition  a key came though there is one, or none though there is none
  absl::StatusOr<v1::HelloResponse> Hello(const v1::HelloRequest& request);

  // Unset until the first Hello.
  [[nodiscard]] std::optional<v1::SandboxSetup> setup() const;

  // Reads this program's own file, so that later Hellos can tell which build it is. The first does
  // not wait for that: whoever sends it has mounted the binary a moment ago.
  void ReadBinaryHash();

 private:
  mutable Mutex mu_;
  std::string key_ ABSL_GUARDED_BY(mu_);
  v1::SandboxSetup setup_ ABSL_GUARDED_BY(mu_);
  std::string binary_sha256_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel::shim
