#include "agent-shim/link/identity.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "supervisor/base/crypto.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {
namespace {

constexpr size_t kSecretBytes = 32;
constexpr std::string_view kProofPrefix = "creel-hello-1";

}  // namespace

absl::StatusOr<v1::HelloResponse> Identity::Hello(const v1::HelloRequest& request) {
  if (request.nonce().size() != kSecretBytes) {
    return absl::InvalidArgumentError(
        fmt::format("the nonce is {} bytes long, not {}", request.nonce().size(), kSecretBytes));
  }
  MutexLock lock(mu_);
  if (!request.key().empty()) {
    if (!key_.empty()) {
      return absl::FailedPreconditionError("this shim has a key already");
    }
    if (request.key().size() != kSecretBytes) {
      return absl::InvalidArgumentError(
          fmt::format("the key is {} bytes long, not {}", request.key().size(), kSecretBytes));
    }
    if (!request.has_setup()) {
      return absl::InvalidArgumentError("the key came without the sandbox's setup");
    }
    key_ = request.key();
    setup_ = request.setup();
  } else if (key_.empty()) {
    return absl::FailedPreconditionError("this shim has no key yet and none was sent");
  }
  v1::HelloResponse response;
  response.set_version(CREEL_VERSION);
  response.set_proof(HmacSha256(key_, std::string(kProofPrefix) + request.nonce()));
  response.set_sandbox_id(setup_.sandbox_id());
  response.set_binary_sha256(binary_sha256_);
  return response;
}

std::optional<v1::SandboxSetup> Identity::setup() const {
  MutexLock lock(mu_);
  if (key_.empty()) {
    return std::nullopt;
  }
  return setup_;
}

void Identity::ReadBinaryHash() {
  {
    MutexLock lock(mu_);
    if (!binary_sha256_.empty()) {
      return;
    }
  }
  const UniqueFd file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return;
  }
  Sha256 hash;
  std::vector<char> buffer(64u << 10);
  for (;;) {
    const ssize_t bytes = read(file.get(), buffer.data(), buffer.size());
    if (bytes < 0 && errno == EINTR) {
      continue;
    }
    if (bytes < 0) {
      return;
    }
    if (bytes == 0) {
      break;
    }
    hash.Update({buffer.data(), static_cast<size_t>(bytes)});
  }
  MutexLock lock(mu_);
  binary_sha256_ = hash.Finish();
}

}  // namespace creel::shim
