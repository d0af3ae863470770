#include "supervisor/egress/client_hello.h"

#include <cstdint>

#include "supervisor/egress/http_head.h"

namespace creel::egress {
namespace {

constexpr size_t kMaxHello = 64u << 10;
constexpr size_t kMaxRecord = 16u << 10;
constexpr uint8_t kHandshake = 22;
constexpr uint8_t kClientHello = 1;
constexpr uint16_t kServerName = 0;

absl::Status Bad(const char* why) { return absl::InvalidArgumentError(why); }

// Reads numbers and pieces from the front; false, and nothing more, where there is not enough.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  bool Number(size_t bytes, size_t& out) {
    if (rest_.size() < bytes) {
      return false;
    }
    out = 0;
    for (size_t i = 0; i < bytes; ++i) {
      out = out << 8 | static_cast<uint8_t>(rest_[i]);
    }
    rest_.remove_prefix(bytes);
    return true;
  }
  bool Bytes(size_t count, std::string_view& out) {
    if (rest_.size() < count) {
      return false;
    }
    out = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return true;
  }
  // A piece behind its own length of so many bytes.
  bool Vector(size_t length_bytes, std::string_view& out) {
    size_t length = 0;
    return Number(length_bytes, length) && Bytes(length, out);
  }
  [[nodiscard]] bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

absl::StatusOr<std::string> NameOf(std::string_view extension) {
  Reader whole(extension);
  std::string_view list;
  if (!whole.Vector(2, list) || !whole.empty() || list.empty()) {
    return Bad("the server name extension is malformed");
  }
  Reader names(list);
  size_t type = 0;
  std::string_view name;
  if (!names.Number(1, type) || !names.Vector(2, name) || type != 0 || name.empty()) {
    return Bad("the server name extension is malformed");
  }
  if (!names.empty()) {
    return Bad("the hello has more than one server name");
  }
  if (name.find('\0') != std::string_view::npos) {
    return Bad("the server name holds a NUL");
  }
  return AsciiLower(name);
}

// `body` is a ClientHello without its header.
absl::StatusOr<HelloFacts> ReadBody(std::string_view body) {
  HelloFacts facts{.kind = HelloFacts::Kind::kHello, .server_name = {}};
  Reader reader(body);
  std::string_view skipped;
  std::string_view extensions;
  if (!reader.Bytes(2 + 32, skipped) || !reader.Vector(1, skipped) || !reader.Vector(2, skipped) ||
      !reader.Vector(1, skipped)) {
    return Bad("the ClientHello is malformed");
  }
  if (reader.empty()) {
    return facts;
  }
  if (!reader.Vector(2, extensions) || !reader.empty()) {
    return Bad("the ClientHello is malformed");
  }
  bool seen = false;
  for (Reader each(extensions); !each.empty();) {
    size_t type = 0;
    std::string_view content;
    if (!each.Number(2, type) || !each.Vector(2, content)) {
      return Bad("an extension of the ClientHello is malformed");
    }
    if (type == kServerName) {
      if (seen) {
        return Bad("the hello has more than one server name");
      }
      seen = true;
      ASSIGN_OR_RETURN(facts.server_name, NameOf(content));
    }
  }
  return facts;
}

}  // namespace

absl::StatusOr<HelloFacts> ReadClientHello(std::string_view bytes) {
  std::string handshake;
  Reader records(bytes);
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  // Told from the first bytes, so that what is not TLS does not wait for more. A record that cannot
  // be one is an error, whatever it seems to hold.
  const size_t first = bytes.size() > 4 ? static_cast<size_t>(byte(3)) << 8 | byte(4) : 0;
  const bool holds = bytes.size() > 5 && first > 0 && first <= kMaxRecord;
  if ((!bytes.empty() && byte(0) != kHandshake) || (bytes.size() > 1 && byte(1) != 3) ||
      (holds && byte(5) != kClientHello)) {
    return HelloFacts{.kind = HelloFacts::Kind::kNotTls, .server_name = {}};
  }
  while (handshake.size() <= kMaxHello) {
    if (handshake.size() >= 4) {
      Reader header(handshake);
      size_t type = 0;
      size_t length = 0;
      header.Number(1, type);
      header.Number(3, length);
      if (length > kMaxHello) {
        return Bad("the ClientHello is longer than 64 KiB");
      }
      std::string_view body;
      if (header.Bytes(length, body)) {
        return ReadBody(body);
      }
    }
    size_t type = 0;
    size_t version = 0;
    size_t length = 0;
    if (!records.Number(1, type) || !records.Number(2, version) || !records.Number(2, length)) {
      return HelloFacts{};
    }
    if (type != kHandshake || version >> 8 != 3 || length == 0 || length > kMaxRecord) {
      return Bad("a record of the ClientHello is malformed");
    }
    std::string_view fragment;
    if (!records.Bytes(length, fragment)) {
      return HelloFacts{};
    }
    handshake.append(fragment);
  }
  return Bad("the ClientHello is longer than 64 KiB");
}

}  // namespace creel::egress
