#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "supervisor/base/status.h"

namespace creel {

// The install's Ed25519 key: signs checkpoints of the record and bundles of evidence. Thread-safe.
class SigningKey {
 public:
  // Reads `directory`/signing-key.pem, or makes it (mode 0600) with signing-key.pub beside it.
  // kFailedPrecondition: the file is there and holds no such key, or others may read it.
  static absl::StatusOr<std::shared_ptr<const SigningKey>> LoadOrMake(const std::string& directory);

  ~SigningKey();
  SigningKey(const SigningKey&) = delete;
  SigningKey& operator=(const SigningKey&) = delete;

  // 64 bytes.
  [[nodiscard]] std::string Sign(std::string_view message) const;
  // 32 bytes.
  [[nodiscard]] const std::string& public_key() const { return public_key_; }

 private:
  struct Key;
  SigningKey(std::unique_ptr<Key> key, std::string public_key);

  const std::unique_ptr<Key> key_;
  const std::string public_key_;
};

// Whether `signature` of `message` was made with the private half of `public_key` (32 bytes).
bool SignatureFits(std::string_view public_key, std::string_view message,
                   std::string_view signature);

// 16 hexadecimal digits by which people tell keys apart.
std::string KeyId(std::string_view public_key);
// PEM, as OpenSSL reads it.
std::string PublicKeyPem(std::string_view public_key);
// The 32 bytes from a PEM file.
absl::StatusOr<std::string> ReadPublicKey(const std::string& path);

}  // namespace creel
