#include "supervisor/sandbox/frame_parser.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>

#include "tests/supervisor/sandbox/raw_frames.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const FrameParser::Time kStart{seconds(1000)};

// A parser that has seen the peer's first SETTINGS.
FrameParser Begun(const FrameBounds& bounds = {}) {
  FrameParser parser(bounds);
  std::string begin(bounds.expect_preface ? kPreface : "");
  begin += Frame(kSettings, 0, 0, 6);
  REQUIRE(parser.Consume(begin, kStart).ok());
  return parser;
}

absl::StatusCode CodeAfter(FrameParser parser, const std::string& bytes) {
  return parser.Consume(bytes, kStart).code();
}

constexpr auto kOk = absl::StatusCode::kOk;
constexpr auto kMalformed = absl::StatusCode::kInvalidArgument;
constexpr auto kTooMuch = absl::StatusCode::kResourceExhausted;

}  // namespace

TEST_SUITE("FrameParser") {
  TEST_CASE("each frame passes or is refused by its header") {
    const struct {
      const char* what;
      std::string bytes;
      absl::StatusCode code;
    } rows[] = {
        {"data", Frame(kData, 0, 1, 100), kOk},
        {"largest data", Frame(kData, 0, 1, 1u << 20), kOk},
        {"oversized data", FrameHeader(kData, 0, 1, (1u << 20) + 1), kTooMuch},
        {"data on stream 0", Frame(kData, 0, 0, 10), kMalformed},
        {"data on a pushed stream", Frame(kData, 0, 2, 10), kMalformed},
        {"padded data", Frame(kData, 0x8, 1, 10), kMalformed},
        {"last empty data", Frame(kData, kEndStream, 1, 0), kOk},
        {"headers", Frame(kHeaders, kEndHeaders, 1, 30), kOk},
        {"empty headers", Frame(kHeaders, kEndHeaders, 1, 0), kMalformed},
        {"headers of nothing but a priority", Frame(kHeaders, kEndHeaders | 0x20, 1, 5),
         kMalformed},
        {"padded headers", Frame(kHeaders, kEndHeaders | 0x8, 1, 30), kMalformed},
        {"oversized headers", FrameHeader(kHeaders, kEndHeaders, 1, (32u << 10) + 1), kTooMuch},
        {"headers on stream 0", Frame(kHeaders, kEndHeaders, 0, 30), kMalformed},
        {"headers in two pieces",
         Frame(kHeaders, 0, 1, 30) + Frame(kContinuation, kEndHeaders, 1, 30), kOk},
        {"continuation without headers", Frame(kContinuation, kEndHeaders, 1, 30), kMalformed},
        {"continuation of nothing", Frame(kHeaders, 0, 1, 30) + Frame(kContinuation, 0, 1, 0),
         kMalformed},
        {"continuation of another stream",
         Frame(kHeaders, 0, 1, 30) + Frame(kContinuation, kEndHeaders, 3, 30), kMalformed},
        {"data inside a header block", Frame(kHeaders, 0, 1, 30) + Frame(kData, 0, 1, 30),
         kMalformed},
        {"a ping inside a header block", Frame(kHeaders, 0, 1, 30) + Frame(kPing, 0, 0, 8),
         kMalformed},
        {"header block too large in sum",
         Frame(kHeaders, 0, 1, 20u << 10) + Frame(kContinuation, 0, 1, 20u << 10), kTooMuch},
        {"endless continuation",
         Frame(kHeaders, 0, 1, 30) + Repeat(Frame(kContinuation, 0, 1, 1), 9), kTooMuch},
        {"push promise", Frame(kPushPromise, kEndHeaders, 1, 30), kMalformed},
        {"unknown type", Frame(10, 0, 1, 30), kMalformed},
        {"unknown type 255", Frame(255, 0, 0, 0), kMalformed},
        {"settings", Frame(kSettings, 0, 0, 36), kOk},
        {"settings' acknowledgement", Frame(kSettings, 1, 0, 0), kOk},
        {"acknowledgement with content", Frame(kSettings, 1, 0, 6), kMalformed},
        {"settings of odd length", Frame(kSettings, 0, 0, 7), kMalformed},
        {"too many settings", Frame(kSettings, 0, 0, 6 * 33), kMalformed},
        {"settings on a stream", Frame(kSettings, 0, 1, 6), kMalformed},
        {"ping", Frame(kPing, 0, 0, 8), kOk},
        {"long ping", Frame(kPing, 0, 0, 9), kMalformed},
        {"ping on a stream", Frame(kPing, 0, 1, 8), kMalformed},
        {"reset", Frame(kRstStream, 0, 1, 4), kOk},
        {"reset of stream 0", Frame(kRstStream, 0, 0, 4), kMalformed},
        {"long reset", Frame(kRstStream, 0, 1, 5), kMalformed},
        {"priority", Frame(kPriority, 0, 1, 5), kOk},
        {"short priority", Frame(kPriority, 0, 1, 4), kMalformed},
        {"window update", Frame(kWindowUpdate, 0, 0, 4), kOk},
        {"window update of a stream", Frame(kWindowUpdate, 0, 1, 4), kOk},
        {"long window update", Frame(kWindowUpdate, 0, 0, 8), kMalformed},
        {"goodbye", Frame(kGoAway, 0, 0, 20), kOk},
        {"short goodbye", Frame(kGoAway, 0, 0, 7), kMalformed},
        {"long goodbye", FrameHeader(kGoAway, 0, 0, (16u << 10) + 1), kMalformed},
        {"goodbye on a stream", Frame(kGoAway, 0, 1, 20), kMalformed},
    };
    for (const auto& row : rows) {
      CAPTURE(std::string(row.what));
      CHECK(CodeAfter(Begun(), row.bytes) == row.code);
    }
  }

  TEST_CASE("a stream that does not begin as it must is refused") {
    CHECK(CodeAfter(FrameParser({}), Frame(kPing, 0, 0, 8)) == kMalformed);
    CHECK(CodeAfter(FrameParser({}), Frame(kSettings, 1, 0, 0)) == kMalformed);
    CHECK(CodeAfter(FrameParser({}), "GET / HTTP/1.1\r\n\r\n") != kOk);
    const FrameBounds client = {.expect_preface = true};
    CHECK(CodeAfter(FrameParser(client), Frame(kSettings, 0, 0, 0)) == kMalformed);
    CHECK(CodeAfter(FrameParser(client), std::string(kPreface) + Frame(kSettings, 0, 0, 0)) == kOk);
    CHECK(CodeAfter(FrameParser(client), "PRI * HTTP/2.0\r\n\r\nSN") == kMalformed);
  }

  TEST_CASE("the same is said whatever the pieces in which the bytes come") {
    const std::string bytes = std::string(kPreface) + Frame(kSettings, 0, 0, 12) +
                              Frame(kHeaders, 0, 1, 300) +
                              Frame(kContinuation, kEndHeaders, 1, 20) + Frame(kData, 0, 1, 1000) +
                              Frame(kData, kEndStream, 1, 0) + Frame(kPushPromise, 0, 1, 10);
    for (size_t piece = 1; piece < 40; ++piece) {
      CAPTURE(piece);
      FrameParser parser({.expect_preface = true});
      absl::Status status;
      for (size_t at = 0; at < bytes.size() && status.ok(); at += piece) {
        status = parser.Consume(std::string_view(bytes).substr(at, piece), kStart);
      }
      CHECK(status.code() == kMalformed);
      CHECK(parser.frames() == 5);
    }
  }

  TEST_CASE("a failure is for good") {
    FrameParser parser = Begun();
    CHECK_FALSE(parser.Consume(Frame(200, 0, 0, 0), kStart).ok());
    CHECK_FALSE(parser.Consume(Frame(kData, 0, 1, 10), kStart).ok());
  }

  TEST_CASE("payload is counted down") {
    FrameParser parser = Begun();
    REQUIRE(parser.Consume(FrameHeader(kData, 0, 1, 1000) + "abc", kStart).ok());
    CHECK(parser.payload_left() == 997);
    REQUIRE(parser.Consume(std::string(997, 'x'), kStart).ok());
    CHECK(parser.payload_left() == 0);
  }

  TEST_CASE("floods are refused, and what is spread over time is not") {
    const struct {
      const char* what;
      std::string frame;
    } rows[] = {
        {"ping", Frame(kPing, 0, 0, 8)},           {"settings", Frame(kSettings, 0, 0, 6)},
        {"acks", Frame(kSettings, 1, 0, 0)},       {"reset", Frame(kRstStream, 0, 1, 4)},
        {"priority", Frame(kPriority, 0, 1, 5)},   {"empty data", Frame(kData, 0, 1, 0)},
        {"window", Frame(kWindowUpdate, 0, 1, 4)}, {"goodbye", Frame(kGoAway, 0, 0, 8)},
    };
    for (const auto& row : rows) {
      CAPTURE(std::string(row.what));
      CHECK(CodeAfter(Begun(), Repeat(row.frame, 1900)) == kOk);
      CHECK(CodeAfter(Begun(), Repeat(row.frame, 2100)) == kTooMuch);
      FrameParser parser = Begun();
      absl::Status status;
      for (int i = 0; i < 5000; ++i) {
        status.Update(parser.Consume(row.frame, kStart + milliseconds(i)));
      }
      CHECK(status.ok());
    }
  }

  TEST_CASE("window updates are due to the data that went the other way") {
    FrameParser parser = Begun();
    parser.Carried(10000 * 128);
    CHECK(parser.Consume(Repeat(Frame(kWindowUpdate, 0, 1, 4), 10000), kStart).ok());
    CHECK(parser.Consume(Repeat(Frame(kWindowUpdate, 0, 1, 4), 2100), kStart).code() == kTooMuch);
  }

  TEST_CASE("thousands of short calls a second explain their window updates") {
    FrameParser parser = Begun({.expect_preface = true});
    uint32_t stream = 1;
    FrameParser::Time now = kStart;
    for (int call = 0; call < 10000; ++call, stream += 2, now += std::chrono::microseconds(200)) {
      REQUIRE(parser.Consume(Frame(kHeaders, kEndHeaders, stream, 10), now).ok());
      REQUIRE(parser.Consume(Repeat(Frame(kWindowUpdate, 0, stream, 4), 4), now).ok());
    }
    CHECK(parser.Consume(Repeat(Frame(kWindowUpdate, 0, 1, 4), 2100), now).code() == kTooMuch);
  }

  TEST_CASE("header blocks and small data have rates of their own") {
    std::string headers;
    for (uint32_t i = 0; i < 20100; ++i) {
      headers += Frame(kHeaders, kEndHeaders, 2 * i + 1, 10);
    }
    CHECK(CodeAfter(Begun(), headers) == kTooMuch);
    CHECK(CodeAfter(Begun(), headers.substr(0, headers.size() * 9 / 10)) == kOk);
    CHECK(CodeAfter(Begun({.max_small_data_per_second = 100}),
                    Repeat(Frame(kData, 0, 1, 127), 101)) == kTooMuch);
    CHECK(CodeAfter(Begun({.max_small_data_per_second = 100}),
                    Repeat(Frame(kData, 0, 1, 128), 101)) == kOk);
  }

  TEST_CASE("a client opens each stream once and in order") {
    const FrameBounds client = {.expect_preface = true};
    const std::string one = Frame(kHeaders, kEndHeaders, 1, 10);
    const std::string five = Frame(kHeaders, kEndHeaders, 5, 10);
    CHECK(CodeAfter(Begun(client), one + five) == kOk);
    CHECK(CodeAfter(Begun(client), five + one) == kMalformed);
    CHECK(CodeAfter(Begun(client), one + one) == kMalformed);
    CHECK(CodeAfter(Begun(), one + one) == kOk);
  }
}

}  // namespace creel
