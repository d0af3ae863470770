#include "supervisor/config/text.h"

#include <doctest/doctest.h>

namespace creel {
namespace {

TEST_SUITE("Text") {
  TEST_CASE("well-formed UTF-8 is told from what is not") {
    CHECK(IsValidUtf8(""));
    CHECK(IsValidUtf8("plain"));
    CHECK(IsValidUtf8("gr\xc3\xbc\xc3\x9f \xf0\x9f\xa6\x9e"));
    CHECK_FALSE(IsValidUtf8("\xff"));
    CHECK_FALSE(IsValidUtf8("\xc3"));              // cut off
    CHECK_FALSE(IsValidUtf8("\xc0\xaf"));          // overlong /
    CHECK_FALSE(IsValidUtf8("\xe0\x80\xaf"));      // overlong /
    CHECK_FALSE(IsValidUtf8("\xed\xa0\x80"));      // surrogate
    CHECK_FALSE(IsValidUtf8("\xf4\x90\x80\x80"));  // above U+10FFFF
  }
  TEST_CASE("the nearest word is found, and none where none is near") {
    CHECK(Nearest("memroy", {"cpus", "memory", "pids"}) == "memory");
    CHECK(Nearest("memory_bytes", {"cpus", "memory", "pids"}) == "memory");
    CHECK(Nearest("xyzzy", {"cpus", "memory"}).empty());
    CHECK(Nearest("", {"cpus"}).empty());
  }
}

}  // namespace
}  // namespace creel
