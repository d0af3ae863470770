#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string_view>

#include "supervisor/base/status.h"

namespace creel {

// Bounds on what a peer may send on one HTTP/2 connection. The rates allow a burst of one second's
// worth.
struct FrameBounds {
  // True where the peer is the client, as on gateway.sock: its stream begins with the preface, and
  // it is the one that opens streams.
  bool expect_preface = false;
  // Payload of a DATA frame; not above what gRPC announces, or gRPC refuses what passed here.
  uint32_t max_frame_bytes = 1u << 20;
  // Payload of HEADERS together with its CONTINUATIONs, compressed.
  uint32_t max_header_bytes = 32u << 10;
  uint32_t max_continuations = 8;
  // PING, SETTINGS, RST_STREAM, PRIORITY, GOAWAY, empty DATA, and WINDOW_UPDATE beyond one for each
  // 128 bytes that went the other way and four for each header block.
  uint32_t max_control_per_second = 2000;
  // Header blocks: new streams of a client; first and last word of a server on each stream.
  uint32_t max_headers_per_second = 20000;
  // DATA frames of less than 128 bytes: gRPC keeps some 40 bytes of its own for each.
  uint32_t max_small_data_per_second = 200000;
  // The guard drops a connection that has not sent its first frame by then.
  std::chrono::milliseconds first_frame_within{5000};
};

// Reads the frame headers of one direction of an HTTP/2 connection and nothing else. No I/O, so
// that it can be fuzzed. Not thread-safe.
class FrameParser {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit FrameParser(const FrameBounds& bounds);

  // Looks at the next bytes of the stream, in pieces of any size. An error (kInvalidArgument or
  // kResourceExhausted) says which bound broke: the connection must be dropped, and none of `bytes`
  // be passed on. Once it has failed it fails for good.
  absl::Status Consume(std::string_view bytes, Time now);
  // Tells of bytes that went the other way, which the peer may answer with WINDOW_UPDATE.
  void Carried(uint64_t bytes);

  // How many bytes of the current frame's payload are still to come.
  [[nodiscard]] uint64_t payload_left() const { return payload_left_; }
  // Frames seen so far.
  [[nodiscard]] uint64_t frames() const { return frames_; }

 private:
  // Allows `per_second` events a second, and as many at once after a quiet second.
  class Rate {
   public:
    explicit Rate(uint32_t per_second) : per_second_(per_second), left_(per_second) {}
    // Whether one more event is within the rate.
    bool Take(Time now);

   private:
    double per_second_;
    double left_;
    Time last_{};
  };

  struct Frame {
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint32_t stream;
  };

  absl::Status CheckFrame(const Frame& frame, Time now);
  absl::Status CheckData(const Frame& frame, Time now);
  absl::Status CheckHeaders(const Frame& frame, Time now);
  absl::Status CheckContinuation(const Frame& frame);
  absl::Status CheckWindowUpdate(Time now);
  void Explain(uint64_t window_updates);
  absl::Status TakeControl(const Frame& frame, Time now);

  const FrameBounds bounds_;
  absl::Status failure_;
  uint32_t preface_seen_ = 0;
  std::array<uint8_t, 9> header_{};
  uint32_t header_seen_ = 0;
  uint64_t payload_left_ = 0;
  uint64_t frames_ = 0;
  // The stream whose header block is not complete yet; 0: none.
  uint32_t open_block_ = 0;
  uint32_t block_bytes_ = 0;
  uint32_t block_continuations_ = 0;
  // Of a client: the highest stream it has opened.
  uint32_t last_stream_ = 0;
  Rate control_;
  Rate headers_;
  Rate small_data_;
  uint64_t carried_ = 0;
  uint64_t window_updates_due_ = 0;
};

}  // namespace creel
