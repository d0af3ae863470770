#include "supervisor/egress/websocket.h"

#include <algorithm>

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
