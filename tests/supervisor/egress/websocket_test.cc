#include "supervisor/egress/websocket.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace creel::egress {
namespace {

using namespace std::string_literals;

TEST_SUITE("FrameReader") {
  TEST_CASE("a frame ends where its head says, whatever the pieces") {
    const std::vector<std::string> frames{
        "\x81\x05hello"s,
        "\x81\x00"s,
        "\x02\x84keys1234"s,
        "\x82\x7e\x01\x00"s + std::string(256, 'x'),
        "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"s + std::string(65536, 'y'),
        "\x88\x82keys\x03\xe8"s,
    };
    std::string all;
    std::vector<size_t> ends;
    for (const std::string& frame : frames) {
      all += frame;
      ends.push_back(all.size());
    }
    for (const size_t piece :
         {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{1000}, all.size()}) {
      CAPTURE(piece);
      FrameReader reader;
      std::vector<size_t> found;
      size_t at = 0;
      while (at < all.size()) {
        const size_t until = std::min(all.size(), (at / piece + 1) * piece);
        bool ended = false;
        const size_t taken = reader.Take(std::string_view(all).substr(at, until - at), ended);
        REQUIRE(taken > 0);
        at += taken;
        if (ended) {
          found.push_back(at);
        }
      }
      CHECK(found == ends);
    }
  }
}

}  // namespace
}  // namespace creel::egress
