#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace creel::shim {

// The tar format as POSIX has it (ustar with pax headers), and what GNU tar adds for long names.

inline constexpr size_t kTarBlock = 512;

enum class TarKind {
  kFile,
  kHardLink,
  kLink,
  kDirectory,
  kPax,
  kPaxGlobal,
  kLongName,
  kLongLink,
  kOther
};

// One header block, or what it is made from.
struct TarHeader {
  TarKind kind = TarKind::kFile;
  std::string name = {};
  std::string link = {};
  uint32_t mode = 0;
  uint64_t uid = 0;
  uint64_t gid = 0;
  // Of the content that follows.
  uint64_t size = 0;
  int64_t modified_at = 0;
};

// Bytes to fill up the last block of a content of `size` bytes.
inline uint64_t TarPadding(uint64_t size) { return (kTarBlock - size % kTarBlock) % kTarBlock; }

// The header in one or more blocks, a pax header in front where a field does not fit.
std::string EncodeTarHeader(const TarHeader& header);

// Nothing if the block is no tar header: wrong checksum, or a number that cannot be read.
std::optional<TarHeader> DecodeTarHeader(std::string_view block);

// Puts the records of a pax header into `header`. False if they are malformed.
bool ApplyPaxRecords(std::string_view records, TarHeader& header);

}  // namespace creel::shim
