#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace creel {

// A bundle is a `tar.zst` with one more frame at its end, of the kind that zstd skips: the seal. It
// holds the SHA-256 of every byte before it and a signature of that, so that no byte of the file
// can change unseen, the compressor's own included; tar and zstd read the file as if it were not
// there. The last member, `manifest.json`, has the sums of all others, to tell which was hit.
struct Seal {
  uint64_t length = 0;  // of what is before it
  std::string sha256;   // 32 bytes
  std::string key_id;   // 16 hexadecimal digits
  std::string signature;
};

inline constexpr size_t kSealBytes = 8 + 16 + 8 + 32 + 16 + 64;
inline constexpr char kManifestName[] = "manifest.json";

std::string WriteSeal(const Seal& seal);
// Nothing if these bytes are no seal.
std::optional<Seal> ReadSeal(std::string_view bytes);
// What is signed.
std::string SealMessage(const Seal& seal);

}  // namespace creel
