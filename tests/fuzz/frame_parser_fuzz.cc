// What a hostile peer may send: whatever the bytes and the pieces they come in, the parser neither
// crashes nor lets pass a frame that a plain reading of the same bytes finds out of bounds.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "supervisor/sandbox/frame_parser.h"

namespace creel {
namespace {

// The frames that are complete up to their header, read in one go.
void CheckPassed(std::string_view bytes, const FrameBounds& bounds, uint64_t frames) {
  size_t at = bounds.expect_preface ? 24 : 0;
  uint64_t count = 0;
  for (; at + 9 <= bytes.size(); ++count) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[at + i]); };
    const size_t length = static_cast<size_t>(byte(0)) << 16 | static_cast<size_t>(byte(1)) << 8 |
                          static_cast<size_t>(byte(2));
    const uint8_t type = byte(3);
    if (type > 9 || type == 5 || length > bounds.max_frame_bytes ||
        ((type == 1 || type == 9) && length > bounds.max_header_bytes)) {
      std::abort();
    }
    at += 9 + length;
  }
  if (count != frames) {
    std::abort();
  }
}

}  // namespace
}  // namespace creel

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using creel::FrameParser;
  if (size < 2) {
    return 0;
  }
  // The first byte chooses the side, the second how the rest is cut.
  const creel::FrameBounds bounds = {
      .expect_preface = (data[0] & 1) != 0,
      .max_frame_bytes = 1u << 14,
      .max_header_bytes = 1u << 10,
      .max_continuations = 3,
      .max_control_per_second = 20,
      .max_headers_per_second = 20,
      .max_small_data_per_second = 50,
  };
  const std::string_view all(reinterpret_cast<const char*>(data) + 2, size - 2);
  FrameParser in_pieces(bounds);
  FrameParser at_once(bounds);
  FrameParser::Time now{std::chrono::seconds(1)};
  const absl::Status expected = at_once.Consume(all, now);
  absl::Status status;
  const size_t piece = data[1] % 37 + 1;
  for (size_t at = 0; at < all.size() && status.ok(); at += piece) {
    status = in_pieces.Consume(all.substr(at, piece), now);
  }
  if (status != expected || in_pieces.frames() != at_once.frames() ||
      in_pieces.payload_left() != at_once.payload_left()) {
    std::abort();
  }
  if (status.ok()) {
    creel::CheckPassed(all, bounds, at_once.frames());
  }
  return 0;
}
