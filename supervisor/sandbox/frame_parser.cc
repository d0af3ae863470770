#include "supervisor/sandbox/frame_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace creel {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// RFC 9113, section 6.
enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kRstStream = 3,
  kSettings = 4,
  kPushPromise = 5,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
constexpr const char* kNames[] = {"DATA",          "HEADERS",      "PRIORITY", "RST_STREAM",
                                  "SETTINGS",      "PUSH_PROMISE", "PING",     "GOAWAY",
                                  "WINDOW_UPDATE", "CONTINUATION"};

constexpr uint8_t kAck = 0x1;
constexpr uint8_t kEndStream = 0x1;
constexpr uint8_t kEndHeaders = 0x4;
constexpr uint8_t kPadded = 0x8;
constexpr uint8_t kPriorityFlag = 0x20;

constexpr uint32_t kMaxSettings = 32;
constexpr uint32_t kMaxGoAway = 16u << 10;
constexpr uint32_t kSmallData = 128;
// What explains WINDOW_UPDATE: so many bytes that went the other way one, a header block (a call that
// begins, whose peer reads its first messages) some more; so many of them can be saved up. gRPC sends
// up to two for each message that it reads, however small, which over a thousand short calls a second
// is more than the control frames may be.
constexpr uint64_t kBytesPerWindowUpdate = 128;
constexpr uint64_t kWindowUpdatesPerHeaders = 4;
constexpr uint64_t kMaxWindowUpdatesDue = 65536;

absl::Status Malformed(std::string what) { return absl::InvalidArgumentError(std::move(what)); }

absl::Status TooMuch(std::string what) { return absl::ResourceExhaustedError(std::move(what)); }

}  // namespace

bool FrameParser::Rate::Take(Time now) {
  if (now > last_) {
    const double seconds = std::chrono::duration<double>(now - last_).count();
    left_ = std::min(per_second_, left_ + seconds * per_second_);
    last_ = now;
  }
  if (left_ < 1) {
    return false;
  }
  left_ -= 1;
  return true;
}

FrameParser::FrameParser(const FrameBounds& bounds)
    : bounds_(bounds),
      preface_seen_(bounds.expect_preface ? 0 : kPreface.size()),
      control_(bounds.max_control_per_second),
      headers_(bounds.max_headers_per_second),
      small_data_(bounds.max_small_data_per_second) {}

absl::Status FrameParser::Consume(std::string_view bytes, Time now) {
  RETURN_IF_ERROR(failure_);
  while (!bytes.empty()) {
    if (preface_seen_ < kPreface.size()) {
      const size_t count = std::min(bytes.size(), kPreface.size() - preface_seen_);
      if (bytes.substr(0, count) != kPreface.substr(preface_seen_, count)) {
        return failure_ = Malformed("the connection does not begin as HTTP/2");
      }
      preface_seen_ += static_cast<uint32_t>(count);
      bytes.remove_prefix(count);
      continue;
    }
    if (payload_left_ > 0) {
      const uint64_t count = std::min<uint64_t>(bytes.size(), payload_left_);
      payload_left_ -= count;
      bytes.remove_prefix(count);
      continue;
    }
    const size_t count = std::min(bytes.size(), header_.size() - header_seen_);
    std::memcpy(header_.data() + header_seen_, bytes.data(), count);
    header_seen_ += static_cast<uint32_t>(count);
    bytes.remove_prefix(count);
    if (header_seen_ < header_.size()) {
      break;
    }
    header_seen_ = 0;
    const Frame frame = {
        .length = static_cast<uint32_t>(header_[0] << 16 | header_[1] << 8 | header_[2]),
        .type = header_[3],
        .flags = header_[4],
        // The highest bit is reserved, and to be ignored.
        .stream = static_cast<uint32_t>(header_[5] & 0x7f) << 24 |
                  static_cast<uint32_t>(header_[6]) << 16 | static_cast<uint32_t>(header_[7]) << 8 |
                  header_[8],
    };
    failure_ = CheckFrame(frame, now);
    RETURN_IF_ERROR(failure_);
    ++frames_;
    payload_left_ = frame.length;
  }
  return absl::OkStatus();
}

void FrameParser::Carried(uint64_t bytes) {
  carried_ += bytes;
  Explain(carried_ / kBytesPerWindowUpdate);
  carried_ %= kBytesPerWindowUpdate;
}

void FrameParser::Explain(uint64_t window_updates) {
  window_updates_due_ = std::min(kMaxWindowUpdatesDue, window_updates_due_ + window_updates);
}

absl::Status FrameParser::CheckFrame(const Frame& frame, Time now) {
  if (frame.type > kContinuation) {
    return Malformed(fmt::format("frame of unknown type {}", frame.type));
  }
  const char* const name = kNames[frame.type];
  if (frames_ == 0 && (frame.type != kSettings || (frame.flags & kAck) != 0)) {
    return Malformed(fmt::format("the first frame is {}, not SETTINGS", name));
  }
  if (open_block_ != 0 && (frame.type != kContinuation || frame.stream != open_block_)) {
    return Malformed(fmt::format("{} inside a header block", name));
  }
  const bool of_connection =
      frame.type == kSettings || frame.type == kPing || frame.type == kGoAway;
  if (of_connection && frame.stream != 0) {
    return Malformed(fmt::format("{} on stream {}", name, frame.stream));
  }
  if (!of_connection && frame.type != kWindowUpdate && frame.stream == 0) {
    return Malformed(fmt::format("{} on stream 0", name));
  }
  // Streams of even number belong to a server that pushes, which nobody here may.
  if (frame.stream != 0 && frame.stream % 2 == 0) {
    return Malformed(fmt::format("{} on stream {}", name, frame.stream));
  }
  bool length_fits = true;
  switch (frame.type) {
    case kData:
      return CheckData(frame, now);
    case kHeaders:
      return CheckHeaders(frame, now);
    case kContinuation:
      return CheckContinuation(frame);
    case kPushPromise:
      return Malformed("PUSH_PROMISE");
    case kPriority:
      length_fits = frame.length == 5;
      break;
    case kRstStream:
    case kWindowUpdate:
      length_fits = frame.length == 4;
      break;
    case kSettings:
      length_fits = (frame.flags & kAck) != 0
                        ? frame.length == 0
                        : frame.length % 6 == 0 && frame.length <= 6 * kMaxSettings;
      break;
    case kPing:
      length_fits = frame.length == 8;
      break;
    case kGoAway:
      length_fits = frame.length >= 8 && frame.length <= kMaxGoAway;
      break;
    default:
      break;
  }
  if (!length_fits) {
    return Malformed(fmt::format("{} of {} bytes", name, frame.length));
  }
  return frame.type == kWindowUpdate ? CheckWindowUpdate(now) : TakeControl(frame, now);
}

absl::Status FrameParser::CheckData(const Frame& frame, Time now) {
  if ((frame.flags & kPadded) != 0) {
    return Malformed("DATA with padding");
  }
  if (frame.length > bounds_.max_frame_bytes) {
    return TooMuch(fmt::format("DATA of {} bytes, above the bound of {}", frame.length,
                               bounds_.max_frame_bytes));
  }
  if (frame.length == 0 && (frame.flags & kEndStream) == 0) {
    return TakeControl(frame, now);
  }
  if (frame.length < kSmallData && !small_data_.Take(now)) {
    return TooMuch(
        fmt::format("more than {} small DATA frames a second", bounds_.max_small_data_per_second));
  }
  return absl::OkStatus();
}

absl::Status FrameParser::CheckHeaders(const Frame& frame, Time now) {
  if ((frame.flags & kPadded) != 0) {
    return Malformed("HEADERS with padding");
  }
  if (frame.length < ((frame.flags & kPriorityFlag) != 0 ? 6u : 1u)) {
    return Malformed("HEADERS without content");
  }
  if (frame.length > bounds_.max_header_bytes) {
    return TooMuch(fmt::format("header block of {} bytes, above the bound of {}", frame.length,
                               bounds_.max_header_bytes));
  }
  if (!headers_.Take(now)) {
    return TooMuch(
        fmt::format("more than {} header blocks a second", bounds_.max_headers_per_second));
  }
  Explain(kWindowUpdatesPerHeaders);
  if (bounds_.expect_preface) {
    // gRPC's clients send no trailers.
    if (frame.stream <= last_stream_) {
      return Malformed(
          fmt::format("HEADERS on stream {} after stream {}", frame.stream, last_stream_));
    }
    last_stream_ = frame.stream;
  }
  if ((frame.flags & kEndHeaders) == 0) {
    open_block_ = frame.stream;
    block_bytes_ = frame.length;
    block_continuations_ = 0;
  }
  return absl::OkStatus();
}

absl::Status FrameParser::CheckContinuation(const Frame& frame) {
  if (open_block_ == 0) {
    return Malformed("CONTINUATION without HEADERS");
  }
  if (frame.length == 0) {
    return Malformed("CONTINUATION without content");
  }
  if (++block_continuations_ > bounds_.max_continuations) {
    return TooMuch(fmt::format("more than {} CONTINUATION frames in one header block",
                               bounds_.max_continuations));
  }
  // Neither exceeds 2^24, so the sum does not wrap.
  block_bytes_ += frame.length;
  if (block_bytes_ > bounds_.max_header_bytes) {
    return TooMuch(fmt::format("header block of {} bytes, above the bound of {}", block_bytes_,
                               bounds_.max_header_bytes));
  }
  if ((frame.flags & kEndHeaders) != 0) {
    open_block_ = 0;
  }
  return absl::OkStatus();
}

absl::Status FrameParser::CheckWindowUpdate(Time now) {
  if (window_updates_due_ > 0) {
    --window_updates_due_;
    return absl::OkStatus();
  }
  if (!control_.Take(now)) {
    return TooMuch("more WINDOW_UPDATE frames than the data explains");
  }
  return absl::OkStatus();
}

absl::Status FrameParser::TakeControl(const Frame& frame, Time now) {
  if (!control_.Take(now)) {
    return TooMuch(fmt::format("more than {} control frames a second, the last a {}",
                               bounds_.max_control_per_second, kNames[frame.type]));
  }
  return absl::OkStatus();
}

}  // namespace creel
