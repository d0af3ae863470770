#include "supervisor/egress/websocket.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>

#include "supervisor/base/crypto.h"

namespace creel::egress {
namespace {

constexpr uint8_t kMasked = 0x80;

// The bytes of a length that the second byte announces.
size_t LengthBytes(uint8_t second) {
  switch (second & ~kMasked) {
    case 126:
      return 2;
    case 127:
      return 8;
    default:
      return 0;
  }
}

}  // namespace

std::string WebSocketAccept(std::string_view key) {
  const std::string text = std::string(key) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest;
  SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return Base64({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

size_t FrameReader::HeadBytes() const {
  if (head_.size() < 2) {
    return 2;
  }
  const auto second = static_cast<uint8_t>(head_[1]);
  return 2 + LengthBytes(second) + ((second & kMasked) != 0 ? 4 : 0);
}

size_t FrameReader::Take(std::string_view in, bool& ended) {
  ended = false;
  size_t taken = 0;
  while (!in_payload_) {
    if (taken == in.size()) {
      return taken;
    }
    head_.push_back(in[taken++]);
    if (head_.size() < HeadBytes()) {
      continue;
    }
    const auto second = static_cast<uint8_t>(head_[1]);
    const size_t length_bytes = LengthBytes(second);
    left_ = length_bytes == 0 ? second & ~kMasked : 0;
    for (size_t i = 0; i < length_bytes; ++i) {
      left_ = left_ << 8 | static_cast<uint8_t>(head_[2 + i]);
    }
    head_.clear();
    in_payload_ = true;
  }
  const auto now = static_cast<size_t>(std::min<uint64_t>(left_, in.size() - taken));
  left_ -= now;
  ended = left_ == 0;
  in_payload_ = !ended;
  return taken + now;
}

}  // namespace creel::egress
