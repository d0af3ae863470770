#include "supervisor/evidence/bundle_format.h"

#include <fmt/format.h>

#include "supervisor/base/crypto.h"

namespace creel {
namespace {

constexpr std::string_view kSkippable("\x5a\x2a\x4d\x18", 4);
constexpr std::string_view kTag = "creel bundle 01\n";

std::string Little(uint64_t value, size_t bytes) {
  std::string out;
  for (size_t i = 0; i < bytes; ++i) {
    out += static_cast<char>(value >> (8 * i) & 0xff);
  }
  return out;
}

}  // namespace

std::string WriteSeal(const Seal& seal) {
  std::string out(kSkippable);
  out += Little(kSealBytes - 8, 4);
  out += kTag;
  out += Little(seal.length, 8);
  out += seal.sha256;
  out += seal.key_id;
  out += seal.signature;
  return out;
}

std::optional<Seal> ReadSeal(std::string_view bytes) {
  if (bytes.size() != kSealBytes || !bytes.starts_with(kSkippable) ||
      bytes.substr(4, 4) != Little(kSealBytes - 8, 4) || bytes.substr(8, 16) != kTag) {
    return {};
  }
  Seal seal;
  for (size_t i = 0; i < 8; ++i) {
    seal.length |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[24 + i])) << (8 * i);
  }
  seal.sha256 = std::string(bytes.substr(32, 32));
  seal.key_id = std::string(bytes.substr(64, 16));
  seal.signature = std::string(bytes.substr(80, 64));
  return seal;
}

std::string SealMessage(const Seal& seal) {
  return fmt::format("creel bundle seal 1\n{}\n{}\n", seal.length, Hex(seal.sha256));
}

}  // namespace creel
