#include "supervisor/base/escape.h"

#include <doctest/doctest.h>

#include <string>

using creel::Printable;

TEST_SUITE("Printable") {
  TEST_CASE("plain text and whole UTF-8 characters pass") {
    CHECK(Printable("a \\ b", 100) == "a \\ b");
    CHECK(Printable("grün 漢 🦀", 100) == "grün 漢 🦀");
  }

  TEST_CASE("what could move a cursor, a line or the reading direction is written out") {
    struct Row {
      std::string text;
      std::string shown;
    };
    const Row rows[] = {
        {"\x1b[2J", "\\x1b[2J"},
        {"a\nb\r\t", "a\\x0ab\\x0d\\x09"},
        {std::string("nul\0", 4), "nul\\x00"},
        {"\x7f", "\\x7f"},
        {"\xc2\x9b", "\\xc2\\x9b"},  // CSI as one character
        {"\xe2\x80\xae"
         "exe",
         "\\xe2\\x80\\xaeexe"},               // right-to-left override
        {"\xe2\x80\xa8", "\\xe2\\x80\\xa8"},  // line separator
    };
    for (const Row& row : rows) {
      CAPTURE(row.shown);
      CHECK(Printable(row.text, 100) == row.shown);
    }
  }

  TEST_CASE("bytes that are not UTF-8 are written out") {
    for (const std::string bytes :
         {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82"}) {
      const std::string shown = Printable(bytes, 100);
      CAPTURE(shown);
      CHECK(shown.size() == bytes.size() * 4);
      CHECK(Printable(shown, 100) == shown);
    }
  }

  TEST_CASE("a long text is cut at a character and says so") {
    CHECK(Printable("abcdef", 6) == "abcdef");
    CHECK(Printable("abcdefg", 6) == "abc…");
    CHECK(Printable("ääää", 7) == "ää…");
    CHECK(Printable("\x1b\x1b\x1b", 8) == "\\x1b…");
    CHECK(Printable(std::string(1 << 20, '\x01'), 1024).size() <= 1024);
    CHECK(Printable("abc", 2) == "");
  }
}
