#include "agent-shim/exec/output_ring.h"

#include <doctest/doctest.h>

#include <string>

namespace creel::shim {
namespace {

constexpr auto kOut = v1::OUTPUT_STREAM_STDOUT;
constexpr auto kErr = v1::OUTPUT_STREAM_STDERR;

std::string DataAt(const OutputRing& ring, uint64_t offset) {
  const OutputRing::Next next = ring.Read(offset);
  const auto* piece = std::get_if<OutputRing::Piece>(&next);
  REQUIRE(piece != nullptr);
  CHECK((*piece)->event().output().offset() == offset);
  return (*piece)->event().output().data();
}

}  // namespace

TEST_SUITE("OutputRing") {
  TEST_CASE("both streams share one space of offsets") {
    OutputRing ring;
    ring.Append(kOut, "abc");
    ring.Append(kErr, "def");
    CHECK(DataAt(ring, 0) == "abc");
    CHECK(DataAt(ring, 3) == "def");
    CHECK(DataAt(ring, 4) == "ef");
    CHECK(std::holds_alternative<std::monostate>(ring.Read(6)));
    CHECK(ring.end() == 6);
  }

  TEST_CASE("a piece that is being sent is not changed") {
    OutputRing ring;
    ring.Append(kOut, "abc");
    const OutputRing::Next sending = ring.Read(0);
    ring.Append(kOut, "def");
    CHECK(std::get<OutputRing::Piece>(sending)->event().output().data() == "abc");
    CHECK(DataAt(ring, 3) == "def");
  }

  TEST_CASE("what was dropped is told as a gap") {
    OutputRing ring;
    ring.Append(kOut, std::string(40'000, 'a'));
    ring.Append(kErr, std::string(40'000, 'b'));
    ring.Trim(50'000, UINT64_MAX);
    CHECK(ring.begin() == 40'000);
    const OutputRing::Next next = ring.Read(7);
    CHECK(std::get<v1::OutputGap>(next).from() == 7);
    CHECK(std::get<v1::OutputGap>(next).to() == 40'000);
  }

  TEST_CASE("what a reader has yet to take is not dropped") {
    OutputRing ring;
    ring.Append(kOut, std::string(40'000, 'a'));
    ring.Append(kErr, std::string(40'000, 'b'));
    ring.Trim(0, 39'999);
    CHECK(ring.begin() == 0);
    ring.Trim(0, 40'000);
    CHECK(ring.begin() == 40'000);
  }

  TEST_CASE("single bytes to both streams in turn stay within the bound") {
    OutputRing ring;
    for (int i = 0; i < 100'000; ++i) {
      ring.Append(i % 2 == 0 ? kOut : kErr, "x");
      ring.Trim(100'000, UINT64_MAX);
    }
    CHECK(ring.cost() <= 100'000);
    CHECK(ring.end() == 100'000);
    CHECK(ring.end() - ring.begin() < 1000);
  }
}

}  // namespace creel::shim
