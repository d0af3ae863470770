#include "agent-shim/files/tar_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace creel::shim {
namespace {

// POSIX 1003.1, "ustar Interchange Format".
struct Field {
  size_t at;
  size_t size;
};
constexpr Field kName{0, 100};
constexpr Field kMode{100, 8};
constexpr Field kUid{108, 8};
constexpr Field kGid{116, 8};
constexpr Field kSize{124, 12};
constexpr Field kTime{136, 12};
constexpr Field kChecksum{148, 8};
constexpr size_t kTypeAt = 156;
constexpr Field kLink{157, 100};
constexpr Field kMagic{257, 6};
constexpr Field kPrefix{345, 155};
constexpr uint64_t kMaxSmall = 07777777;
constexpr uint64_t kMaxLarge = 077777777777;
constexpr int64_t kMaxTime = int64_t{1} << 40;

void PutText(std::string& block, Field field, std::string_view text) {
  std::memcpy(block.data() + field.at, text.data(), std::min(text.size(), field.size));
}

void PutNumber(std::string& block, Field field, uint64_t number) {
  PutText(block, field, fmt::format("{:0{}o}", number, field.size - 1));
}

uint32_t Checksum(std::string_view block) {
  uint32_t sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i) {
    const bool own = i >= kChecksum.at && i < kChecksum.at + kChecksum.size;
    sum += own ? ' ' : static_cast<unsigned char>(block[i]);
  }
  return sum;
}

std::string Block(const TarHeader& header, char type) {
  std::string block(kTarBlock, '\0');
  PutText(block, kName, header.name);
  PutNumber(block, kMode, header.mode & 07777U);
  PutNumber(block, kUid, header.uid > kMaxSmall ? 0 : header.uid);
  PutNumber(block, kGid, header.gid > kMaxSmall ? 0 : header.gid);
  PutNumber(block, kSize, header.size > kMaxLarge ? 0 : header.size);
  PutNumber(block, kTime, header.modified_at < 0 ? 0 : static_cast<uint64_t>(header.modified_at));
  block[kTypeAt] = type;
  PutText(block, kLink, header.link);
  PutText(block, {kMagic.at, 8}, std::string_view("ustar\00000", 8));
  PutText(block, kChecksum, fmt::format("{:06o}", Checksum(block)));
  block[kChecksum.at + 7] = ' ';
  return block;
}

// "LENGTH KEY=VALUE\n", where LENGTH counts itself.
std::string PaxRecord(std::string_view key, std::string_view value) {
  const size_t rest = key.size() + value.size() + 3;
  size_t total = rest + 1;
  while (total != rest + std::to_string(total).size()) {
    total = rest + std::to_string(total).size();
  }
  return fmt::format("{} {}={}\n", total, key, value);
}

std::string Text(std::string_view block, Field field) {
  const std::string_view text = block.substr(field.at, field.size);
  return std::string(text.substr(0, text.find('\0')));
}

// Octal digits between spaces and NULs, or GNU's big-endian binary with the top bit set.
std::optional<uint64_t> Number(std::string_view block, Field field) {
  const std::string_view text = block.substr(field.at, field.size);
  const auto first = static_cast<unsigned char>(text[0]);
  if ((first & 0x80U) != 0) {
    uint64_t number = first & 0x7fU;
    for (const char c : text.substr(1)) {
      if (number >> 55U != 0) {
        return std::nullopt;
      }
      number = number << 8U | static_cast<unsigned char>(c);
    }
    return number;
  }
  uint64_t number = 0;
  bool ended = false;
  bool started = false;
  for (const char c : text) {
    if (c == ' ' || c == '\0') {
      ended = started;
      continue;
    }
    if (ended || c < '0' || c > '7') {
      return std::nullopt;
    }
    started = true;
    number = number << 3U | static_cast<uint64_t>(c - '0');
  }
  return number;
}

TarKind KindOf(char type) {
  switch (type) {
    case '0':
    case '\0':
    case '7':
      return TarKind::kFile;
    case '1':
      return TarKind::kHardLink;
    case '2':
      return TarKind::kLink;
    case '5':
      return TarKind::kDirectory;
    case 'x':
      return TarKind::kPax;
    case 'g':
      return TarKind::kPaxGlobal;
    case 'L':
      return TarKind::kLongName;
    case 'K':
      return TarKind::kLongLink;
    default:
      return TarKind::kOther;
  }
}

template <typename T>
bool ParseDecimal(std::string_view text, T* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

bool ApplyPaxRecord(std::string_view key, std::string_view value, TarHeader& header) {
  const bool text = key == "path" || key == "linkpath";
  if (text && value.find('\0') != std::string_view::npos) {
    return false;
  }
  if (key == "path") {
    header.name = value;
  } else if (key == "linkpath") {
    header.link = value;
  } else if (key == "size") {
    return ParseDecimal(value, &header.size) && header.size <= uint64_t{1} << 60U;
  } else if (key == "mtime") {
    return ParseDecimal(value.substr(0, value.find('.')), &header.modified_at) &&
           header.modified_at < kMaxTime && header.modified_at > -kMaxTime;
  }
  // All other keys (owners, attributes, comments) mean nothing here.
  return true;
}

}  // namespace

std::string EncodeTarHeader(const TarHeader& header) {
  std::string pax;
  if (header.name.size() > kName.size) {
    pax += PaxRecord("path", header.name);
  }
  if (header.link.size() > kLink.size) {
    pax += PaxRecord("linkpath", header.link);
  }
  if (header.size > kMaxLarge) {
    pax += PaxRecord("size", std::to_string(header.size));
  }
  if (header.uid > kMaxSmall) {
    pax += PaxRecord("uid", std::to_string(header.uid));
  }
  if (header.gid > kMaxSmall) {
    pax += PaxRecord("gid", std::to_string(header.gid));
  }
  std::string blocks;
  if (!pax.empty()) {
    const TarHeader extended{.name = "PaxHeader", .mode = 0644, .size = pax.size()};
    blocks = Block(extended, 'x') + pax;
    blocks.append(TarPadding(pax.size()), '\0');
  }
  const char type = header.kind == TarKind::kDirectory  ? '5'
                    : header.kind == TarKind::kLink     ? '2'
                    : header.kind == TarKind::kHardLink ? '1'
                                                        : '0';
  return blocks + Block(header, type);
}

std::optional<TarHeader> DecodeTarHeader(std::string_view block) {
  const std::optional<uint64_t> checksum = Number(block, kChecksum);
  const std::optional<uint64_t> mode = Number(block, kMode);
  const std::optional<uint64_t> size = Number(block, kSize);
  const std::optional<uint64_t> time = Number(block, kTime);
  if (!checksum || *checksum != Checksum(block) || !mode || !size || *size > uint64_t{1} << 60U) {
    return std::nullopt;
  }
  TarHeader header{.kind = KindOf(block[kTypeAt]),
                   .name = Text(block, kName),
                   .link = Text(block, kLink),
                   .mode = static_cast<uint32_t>(*mode & 07777U),
                   .size = *size};
  // A time before 1970 is written in binary with all bits set; it is not worth a refusal.
  if (time && *time < static_cast<uint64_t>(kMaxTime)) {
    header.modified_at = static_cast<int64_t>(*time);
  }
  // GNU's own headers have "ustar  " and use the prefix for something else.
  if (block.substr(kMagic.at, kMagic.size) == std::string_view("ustar\0", 6)) {
    const std::string prefix = Text(block, kPrefix);
    if (!prefix.empty()) {
      header.name = prefix + "/" + header.name;
    }
  }
  // Only files and the format's own headers have content; some writers give links a size.
  if (header.kind == TarKind::kLink || header.kind == TarKind::kHardLink ||
      header.kind == TarKind::kDirectory) {
    header.size = 0;
  }
  // Before ustar a directory was a file whose name ends in a slash.
  if (header.kind == TarKind::kFile && !header.name.empty() && header.name.back() == '/') {
    header.kind = TarKind::kDirectory;
  }
  return header;
}

bool ApplyPaxRecords(std::string_view records, TarHeader& header) {
  while (!records.empty()) {
    const size_t space = records.find(' ');
    size_t length = 0;
    if (space == std::string_view::npos || !ParseDecimal(records.substr(0, space), &length) ||
        length <= space + 1 || length > records.size() || records[length - 1] != '\n') {
      return false;
    }
    const std::string_view record = records.substr(space + 1, length - space - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos ||
        !ApplyPaxRecord(record.substr(0, equals), record.substr(equals + 1), header)) {
      return false;
    }
    records.remove_prefix(length);
  }
  return true;
}

}  // namespace creel::shim
