#include "supervisor/egress/masker.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace creel::egress {
namespace {

// What comes out if the text comes in pieces of this size.
std::string InPieces(const std::vector<std::string>& secrets, const std::string& text,
                     size_t piece) {
  Masker masker(secrets);
  std::string out;
  for (size_t at = 0; at < text.size(); at += piece) {
    masker.Feed(text.substr(at, piece), out);
  }
  masker.Finish(out);
  return out;
}

TEST_SUITE("Masker") {
  TEST_CASE("a secret is masked wherever it is cut") {
    const std::string text = "key=s3cr3t-value; again s3cr3t-values3cr3t-value. s3cr3t-valu end";
    const std::string expected =
        "key=************; again ************************. s3cr3t-valu end";
    for (size_t piece = 1; piece <= text.size(); ++piece) {
      CAPTURE(piece);
      CHECK(InPieces({"s3cr3t-value"}, text, piece) == expected);
    }
  }

  TEST_CASE("secrets that overlap, or begin alike, are covered whole") {
    const std::vector<std::string> secrets{"abcdef", "defghi", "abcdefgh", "aaaa"};
    const struct {
      const char* text;
      const char* expected;
    } kRows[] = {
        {"xabcdefx", "x******x"}, {"xabcdefghx", "x********x"}, {"abcdefghi", "*********"},
        {"aaaaaa", "******"},     {"aaabcdef", "aa******"},     {"abcdegabcdef", "abcdeg******"},
    };
    for (const auto& row : kRows) {
      for (size_t piece = 1; piece < 14; ++piece) {
        CAPTURE(row.text);
        CAPTURE(piece);
        CHECK(InPieces(secrets, row.text, piece) == row.expected);
      }
    }
  }

  TEST_CASE("only what may be the beginning of a secret is held back") {
    Masker masker({"secret"});
    std::string out;
    masker.Feed("data: one\n\n", out);
    CHECK(out == "data: one\n\n");
    masker.Feed("se", out);
    CHECK(out == "data: one\n\n");
    masker.Feed("cond", out);
    CHECK(out == "data: one\n\nsecond");
    CHECK(masker.found() == 0);
  }

  TEST_CASE("nothing to look for changes nothing, and short values are not looked for") {
    CHECK(InPieces({}, "text", 1) == "text");
    CHECK(InPieces({"a", "", "abc"}, "abcabc", 2) == "abcabc");
  }

  TEST_CASE("a value is looked for in the forms in which it may be echoed") {
    const std::vector<std::string> forms = FormsOf("p/ss \"w\"");
    const Masker masker(forms);
    for (const std::string text :
         {"p/ss \"w\"", "p%2Fss%20%22w%22", "cC9zcyAidyI=", "p\\/ss \\\"w\\\""}) {
      CAPTURE(text);
      CHECK(masker.Masked("<" + text + ">") == "<" + std::string(text.size(), '*') + ">");
    }
    // Behind a scheme's name, or anything else.
    const Masker bearer(FormsOf("s3cr3t-value"));
    for (const std::string text : {"QmVhcmVyIHMzY3IzdC12YWx1ZQ==", "eEJlYXJlciBzM2NyM3QtdmFsdWU=",
                                   "eHhCZWFyZXIgczNjcjN0LXZhbHVl", "czNjcjN0LXZhbHVl"}) {
      CAPTURE(text);
      CHECK(bearer.Masked(text).find("***************") != std::string::npos);
    }
  }
}

}  // namespace
}  // namespace creel::egress
