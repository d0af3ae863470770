#include "supervisor/audit/signing_key.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "supervisor/audit/record_files.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/unique_fd.h"

namespace creel {
namespace {

template <auto kFree>
struct FreeWith {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Pkey = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Digest = std::unique_ptr<EVP_MD_CTX, FreeWith<EVP_MD_CTX_free>>;
using Bio = std::unique_ptr<BIO, FreeWith<BIO_free>>;

constexpr size_t kPublicBytes = 32;
constexpr size_t kSignatureBytes = 64;
constexpr size_t kMaxKeyFile = 4096;

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return size > 0 ? std::string(data, static_cast<size_t>(size)) : std::string();
}

std::string PublicOf(const EVP_PKEY* key) {
  std::string raw(kPublicBytes, '\0');
  size_t size = raw.size();
  if (EVP_PKEY_get_raw_public_key(key, reinterpret_cast<unsigned char*>(raw.data()), &size) != 1 ||
      size != kPublicBytes) {
    return {};
  }
  return raw;
}

}  // namespace

struct SigningKey::Key {
  Pkey pkey;
};

SigningKey::SigningKey(std::unique_ptr<Key> key, std::string public_key)
    : key_(std::move(key)), public_key_(std::move(public_key)) {}

SigningKey::~SigningKey() = default;

absl::StatusOr<std::shared_ptr<const SigningKey>> SigningKey::LoadOrMake(
    const std::string& directory) {
  const std::string path = directory + "/signing-key.pem";
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  Pkey pkey;
  if (fd.valid()) {
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0 || (info.st_mode & 077) != 0) {
      return absl::FailedPreconditionError(fmt::format(
          "others may read the signing key '{}'; make it yours (chmod 600), and if they "
          "may have done so, move it away: a new one is made",
          path));
    }
    ASSIGN_OR_RETURN(const std::string pem, ReadRecordFile(path, kMaxKeyFile));
    const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    pkey.reset(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
    if (pkey == nullptr || EVP_PKEY_get_id(pkey.get()) != EVP_PKEY_ED25519) {
      return absl::FailedPreconditionError(fmt::format(
          "'{}' holds no Ed25519 key; restore it, or move it away: a new one is made", path));
    }
  } else if (errno == ENOENT) {
    pkey.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    const Bio bio(BIO_new(BIO_s_mem()));
    if (pkey == nullptr || PEM_write_bio_PrivateKey(bio.get(), pkey.get(), nullptr, nullptr, 0,
                                                    nullptr, nullptr) != 1) {
      return absl::InternalError("OpenSSL makes no Ed25519 key");
    }
    RETURN_IF_ERROR(WriteRecordFile(path, TextOf(bio.get())));
  } else {
    return ErrnoStatus(errno, fmt::format("open the signing key '{}'", path));
  }
  std::string raw = PublicOf(pkey.get());
  if (raw.empty()) {
    return absl::InternalError("OpenSSL gives no public key");
  }
  RETURN_IF_ERROR(WriteRecordFile(directory + "/signing-key.pub", PublicKeyPem(raw)));
  auto key = std::make_unique<Key>();
  key->pkey = std::move(pkey);
  return std::shared_ptr<const SigningKey>(new SigningKey(std::move(key), std::move(raw)));
}

std::string SigningKey::Sign(std::string_view message) const {
  const Digest digest(EVP_MD_CTX_new());
  std::string signature(kSignatureBytes, '\0');
  size_t size = signature.size();
  if (EVP_DigestSignInit(digest.get(), nullptr, nullptr, nullptr, key_->pkey.get()) != 1 ||
      EVP_DigestSign(digest.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     Bytes(message), message.size()) != 1) {
    std::abort();  // out of memory; a signature that is none must not go out
  }
  return signature;
}

bool SignatureFits(std::string_view public_key, std::string_view message,
                   std::string_view signature) {
  if (public_key.size() != kPublicBytes || signature.size() != kSignatureBytes) {
    return false;
  }
  const Pkey pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, Bytes(public_key), public_key.size()));
  const Digest digest(EVP_MD_CTX_new());
  return pkey != nullptr &&
         EVP_DigestVerifyInit(digest.get(), nullptr, nullptr, nullptr, pkey.get()) == 1 &&
         EVP_DigestVerify(digest.get(), Bytes(signature), signature.size(), Bytes(message),
                          message.size()) == 1;
}

std::string KeyId(std::string_view public_key) {
  Sha256 hash;
  hash.Update(public_key);
  return Hex(hash.Finish()).substr(0, 16);
}

std::string PublicKeyPem(std::string_view public_key) {
  const Pkey pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, Bytes(public_key), public_key.size()));
  const Bio bio(BIO_new(BIO_s_mem()));
  if (pkey == nullptr || PEM_write_bio_PUBKEY(bio.get(), pkey.get()) != 1) {
    return {};
  }
  return TextOf(bio.get());
}

absl::StatusOr<std::string> ReadPublicKey(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadRecordFile(path, kMaxKeyFile));
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  const Pkey pkey(PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr));
  std::string raw = pkey == nullptr ? "" : PublicOf(pkey.get());
  if (raw.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' holds no Ed25519 public key in PEM; `creel audit key` prints it", path));
  }
  return raw;
}

}  // namespace creel
